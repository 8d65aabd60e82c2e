"""What runs of model methods hold in memory, against what their plans state; measured in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # As the first thing, so that nothing else of this process counts.
    from fusionbench_core.plugins import configure

    configure(files=[Path(__file__).with_name("wide.py")])

from fusionbench_core.testing.memory import peak_growth

SLACK = 8 * 10**6
"""Bytes of a process that no plan knows of: buffers of products of large matrices, and of files."""

WIDTH, DEPTH, EXPERTS = 512, 16, 8
MODEL = 4 * WIDTH**2 * DEPTH
"""Bytes of one model of linear layers: 17 MB. One of mixtures has 50 MB."""

Case = tuple[str, dict[str, Any], int]
"""Method, its parameters, and the number of models; 0 for one model of mixtures."""


def held(cases: list[Case], directory: Path) -> list[dict[str, int]]:
    """What each run holds at most, `grown`, and what its plan states, `stated`, both in bytes.

    Args:
        cases: What is run.
        directory: Empty; models are written there.
    """
    import wide

    count = max(models for *_, models in cases)
    wide.make_models(directory / "large", count, WIDTH, DEPTH)
    wide.make_models(directory / "small", count, 8, 2)
    wide.make_models(directory / "large_mixtures", 1, WIDTH, DEPTH // 2, EXPERTS)
    wide.make_models(directory / "small_mixtures", 1, 8, 2, EXPERTS)
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(cases), str(directory)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def run(method: str, parameters: dict[str, Any], models: Path, width: int, count: int) -> int:
    """Plan, fuse, write, load and evaluate; gives the stated peak."""
    from fusionbench_core.config.schema import RunConfig
    from fusionbench_core.registry import default_registry
    from fusionbench_core.run import RunDirectory, Runner, prepare

    names = "abcdefgh"[:count]
    with tempfile.TemporaryDirectory(dir=models) as out:
        config = RunConfig(
            method={"name": method, **parameters},
            modelpool={
                "source": "wide",
                "base": str(models / "base"),
                "models": {name: str(models / name) for name in names},
            },
            taskpool={"task": "noise", "tasks": {name: {"width": width} for name in names}},
            engine={"threads": 1},  # type: ignore[arg-type]
            report={"formats": ["json"]},  # type: ignore[arg-type]
            output_dir=f"{out}/run",
        )
        registry = default_registry()
        runner = Runner(prepare(config, registry), RunDirectory.create(config, "held"), registry, command=[])
        return runner.execute().plan["peak_bytes"]


def measured(method: str, parameters: dict[str, Any], count: int, directory: Path) -> dict[str, int]:
    """What a run on large models holds, after one on small models has loaded all code."""
    stated: list[int] = []
    small, large = ("small", "large") if count else ("small_mixtures", "large_mixtures")
    run(method, parameters, directory / small, 8, count or 1)
    grown = peak_growth(lambda: stated.append(run(method, parameters, directory / large, WIDTH, count or 1)))
    return {"grown": grown, "stated": stated[0]}


def main(cases: list[Case], directory: Path) -> None:
    from fusionbench_core.allocator import freed_memory_given_back

    with freed_memory_given_back():
        print(json.dumps([measured(*case, directory) for case in cases]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
