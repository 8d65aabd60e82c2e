"""Merging from disk to disk takes little memory, however many models there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest
import torch

from fusionbench_core import write_safetensors

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc"
)

SUPPORT = Path(__file__).parents[1] / "support"
MEGABYTE = 10**6

MERGE = dedent(
    """
    import json, sys, threading
    from pathlib import Path

    import torch

    from fusionbench_core import fuse
    from fusionbench_core.plugins import configure
    from fusionbench_core.registry import default_registry

    def anonymous():
        for line in open("/proc/self/status"):
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024

    toy, output, warm, paths = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), json.loads(sys.argv[4])
    configure(no_plugins=True, files=[Path(toy)])
    default_registry()
    # A merge of tiny models, so that everything is imported.
    fuse("arithmetic", models={"a": warm}, base=warm, source="mlp", output=output + "-warm")
    start = peak = anonymous()
    stop = threading.Event()

    def watch():
        global peak
        while not stop.wait(0.002):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    base, *experts = paths
    models = {str(number): path for number, path in enumerate(experts)}
    fuse("arithmetic", models=models, base=base, source="mlp", output=output, engine={"threads": 2})
    stop.set()
    watcher.join()
    print(json.dumps(max(peak, anonymous()) - start))
    """
)


def write_model(path: Path, *, seed: int, large: int, rows: int) -> str:
    """fp32: one tensor of `large` entries, and 40 of `rows` x 256."""
    generator = torch.Generator().manual_seed(seed)
    state = {"embedding": torch.randn(large, generator=generator)}
    state |= {f"layers.{index}.weight": torch.randn(rows, 256, generator=generator) for index in range(40)}
    path.mkdir(parents=True)
    (path / "mlp.json").write_text("[4, 8, 3]")
    write_safetensors(path / "model.safetensors", state)
    return str(path)


def growth_of_merging(paths: list[str], directory: Path) -> int:
    """Bytes of anonymous memory that a merge of the first, as base, and the others adds to a process."""
    warm = write_model(directory / "warm", seed=0, large=10, rows=1)
    done = subprocess.run(
        [
            *(sys.executable, "-c", MERGE, str(SUPPORT / "toy.py"), str(directory / "merged")),
            *(json.dumps(warm), json.dumps(paths)),
        ],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = (directory / "merged" / "model.safetensors").stat().st_size
    assert written == (Path(paths[0]) / "model.safetensors").stat().st_size
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def growth(tmp_path_factory):
    """`growth(count)`: bytes of anonymous memory that merging a base and `count` 60 MB models adds."""
    root = tmp_path_factory.mktemp("models")
    paths = [write_model(root / str(seed), seed=seed, large=5_000_000, rows=1000) for seed in range(7)]
    assert 55 * MEGABYTE < os.path.getsize(Path(paths[0]) / "model.safetensors") < 65 * MEGABYTE
    return cache(lambda count: growth_of_merging(paths[: count + 1], root / f"{count}-models"))


def test_merging_six_models_adds_less_than_two_of_them(growth):
    assert growth(6) < 120 * MEGABYTE


def test_memory_does_not_grow_with_the_number_of_models(growth):
    # Below 40 MB the numbers tell of the allocator's mood rather than of the engine.
    assert growth(6) < 1.3 * max(growth(3), 40 * MEGABYTE)


def test_a_tensor_may_be_larger_than_the_memory_it_takes(tmp_path):
    paths = [write_model(tmp_path / str(seed), seed=seed, large=20_000_000, rows=1) for seed in range(3)]
    assert growth_of_merging(paths, tmp_path / "merge") < 60 * MEGABYTE
