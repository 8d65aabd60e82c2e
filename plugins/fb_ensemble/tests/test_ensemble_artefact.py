"""An ensemble written by `fuse` loads back in a fresh process, with a third party's model source."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = """
from fusionbench_core import ModelSource, SourceRecord, hookimpl, implements, open_checkpoint

RECORD = SourceRecord(name="mlp", target="tiny_source:Mlp", summary="a small network")


@hookimpl
def fb_model_sources():
    return (RECORD,)


@implements(RECORD)
class Mlp(ModelSource):
    def open(self):
        return open_checkpoint(self.path)

    def skeleton(self):
        from torch import nn

        layers = nn.Linear(32, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 5)
        return nn.Sequential(*layers).eval()
"""

FUSE = """
import sys, torch
from pathlib import Path
from fusionbench_core import fuse, write_safetensors
from tiny_source import Mlp

root = Path(sys.argv[1])
torch.manual_seed(0)
for name in "ab":
    (root / name).mkdir()
    write_safetensors(root / name / "model.safetensors", Mlp(path=".").skeleton().state_dict())
paths = {name: root / name for name in "ab"}
weighted = {"weights": {"a": 1, "b": 3}, "space": "probabilities"}
fuse("simple_ensemble", paths, output=root / "simple", source="tiny_source/mlp")
fuse("weighted_ensemble", paths, output=root / "weighted", source="tiny_source/mlp", **weighted)
fuse("max_model_predictor", paths, output=root / "max", source="tiny_source/mlp")
fuse("simple_ensemble", paths, output=root / "one", source="tiny_source/mlp", in_memory="one")
fuse("confidence_routing", paths, output=root / "surest", source="tiny_source/mlp")
fuse("task_routing", paths, output=root / "tasks", source="tiny_source/mlp")
sources = {name: Mlp(path=str(path)) for name, path in paths.items()}
x = torch.randn(10, 32)
seen = {name: source.build(source.open())(x) for name, source in sources.items()}
torch.save({"x": x, **seen}, root / "seen.pt")
"""

LOAD = """
import sys, torch
from pathlib import Path
from fusionbench_core import load

root = Path(sys.argv[1])
seen = torch.load(root / "seen.pt", weights_only=True)
x, a, b = seen["x"], seen["a"], seen["b"]
expected = {
    "simple": (a + b) / 2,
    "weighted": (a.softmax(-1) / 4 + 3 * b.softmax(-1) / 4).log(),
    "max": torch.maximum(a, b),
    "one": (a + b) / 2,
    "surest": torch.where((a.softmax(-1).amax(-1) > b.softmax(-1).amax(-1))[:, None], a, b),
}
for name, y in expected.items():
    torch.testing.assert_close(load(root / name)(x), y)
    assert not list((root / name).glob("*.safetensors")), "weights were copied"
for name, y in {"a": a, "b": b}.items():
    torch.testing.assert_close(load(root / "tasks").for_task(name)(x), y)
print("equal")
"""


def run(code: str, root: Path, site: Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(site),
        "OMP_NUM_THREADS": "1",
        "FB_CACHE_HOME": str(root / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(root)],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_saved_ensemble_loads_back_from_its_members_in_a_fresh_process(tmp_path):
    site, root = tmp_path / "site", tmp_path / "work"
    info = site / "tiny_source-1.0.dist-info"
    info.mkdir(parents=True)
    root.mkdir()
    (site / "tiny_source.py").write_text(SOURCE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-source\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fusionbench]\ntiny_source = tiny_source\n")
    run(FUSE, root, site)
    assert run(LOAD, root, site) == "equal\n"
