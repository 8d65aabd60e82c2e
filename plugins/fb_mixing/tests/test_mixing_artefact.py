"""A mixture written by `fuse` loads back in a fresh process, with a third party's model source."""

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
base = Mlp(path=".").skeleton().state_dict()
for name in ("base", "a", "b", "c"):
    noise = 0.0 if name == "base" else 0.1
    state = {key: tensor + noise * torch.randn(tensor.shape) for key, tensor in base.items()}
    (root / name).mkdir()
    write_safetensors(root / name / "model.safetensors", state)
paths = {name: root / name for name in "abc"}
written = {"base": root / "base", "source": "tiny_source/mlp"}
for k in (4, -1):
    fuse("mixing/smile_upscaling", paths, **written, output=root / f"out{k}", k=k)
modules = {name: Mlp(path=str(path)) for name, path in {**paths, "base": root / "base"}.items()}
modules = {name: source.build(source.open()) for name, source in modules.items()}
base = modules.pop("base")
x = torch.randn(10, 32)
seen = {str(k): fuse("smile_upscaling", modules, base, k=k)(x) for k in (4, -1)}
torch.save({"x": x, **seen}, root / "seen.pt")
"""

LOAD = """
import sys, torch
from pathlib import Path
from fusionbench_core import load

root = Path(sys.argv[1])
seen = torch.load(root / "seen.pt", weights_only=True)
for k in ("4", "-1"):
    module = load(root / f"out{k}")
    assert not module.training
    assert torch.equal(module(seen["x"]), seen[k]), k
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


def test_a_saved_mixture_loads_back_in_a_fresh_process(tmp_path):
    site, root = tmp_path / "site", tmp_path / "work"
    info = site / "tiny_source-1.0.dist-info"
    info.mkdir(parents=True)
    root.mkdir()
    (site / "tiny_source.py").write_text(SOURCE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-source\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fusionbench]\ntiny_source = tiny_source\n")
    run(FUSE, root, site)
    assert not list(root.rglob("*.bin"))
    assert run(LOAD, root, site) == "equal\n"
