"""The fresh process in which a plugin is loaded: reads a request, writes what happened.

`python -m fusionbench_core.testing.package_checks.probe DIRECTORY`
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

# What `fb` has imported already when it loads the first plugin does not count as the plugin's time.
from fusionbench_core.plugins import Plugin
from fusionbench_core.plugins.loading import describe, load
from fusionbench_core.plugins.local import load_file
from fusionbench_core.testing.sandbox import changed, files_below, global_state, no_network

_HEAVY = """
    PIL accelerate cv2 datasets huggingface_hub hydra jax lightning matplotlib numpy omegaconf open_clip
    pandas peft pyarrow pydantic pytorch_lightning rich safetensors scipy sklearn tensorflow timm
    tokenizers torch torchaudio torchvision transformers
"""
HEAVY = frozenset(_HEAVY.split())
"""Packages that take longer to import than all of `fb --help`."""


def main(directory: str) -> None:
    """Answer the request in `directory`."""
    home = Path(directory)
    request = json.loads((home / "request.json").read_text(encoding="utf-8"))
    with no_network():
        answer = ANSWERS[request["do"]](request, home)
    (home / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def load_twice(request: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """Import the light module, and call its declarations twice."""
    seconds = [0.0]
    files = files_below(home)

    def timed() -> ModuleType:
        started = time.perf_counter()
        try:
            return importlib.import_module(request["module"])
        finally:
            seconds.append(time.perf_counter() - started)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        before = set(sys.modules)
        if request["file"]:
            first, second = (load_file(Path(request["file"]), ()) for _ in range(2))
        else:
            plugin = Plugin(namespace=request["namespace"], distribution="", module=request["module"])
            first, second = load(plugin, timed), load(plugin, timed)
    return {
        "milliseconds": 1000 * max(seconds),
        "heavy": sorted({name.partition(".")[0] for name in set(sys.modules) - before} & HEAVY),
        "cause": first.cause or second.cause,
        "same": first.records == second.records,
        "printed": first.printed + second.printed,
        "warned": [f"{each.category.__name__}: {each.message}" for each in warned],
        "files": sorted(
            str(Path(path).relative_to(home)) for path in files_below(home).keys() - files.keys()
        ),
    }


def resolve(request: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """Import the modules of a plugin, after those of others; tell what changed."""
    for name in request["before"]:
        try:
            importlib.import_module(name)
        except Exception:
            # Some modules can be imported only by those that they belong to.
            continue
    places = [Path(path) for path in sys.path if Path(path).is_dir()]
    entries = _entries(places)
    known, state, error = set(sys.modules), global_state(), ""
    for name in request["modules"]:
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as problem:
            error = f"{name}: {describe(problem)}"
            break
    others = [
        name
        for name in sys.modules
        if name not in known and name.partition(".")[0] not in request["own"] and name != "__mp_main__"
    ]
    return {
        "changed": changed(state, global_state()),
        "error": error,
        "written": sorted(_entries(places) - entries),
        "others": others,
    }


def _entries(places: list[Path]) -> set[str]:
    return {str(entry) for place in places for entry in place.iterdir() if entry.name != "__pycache__"}


ANSWERS = {"load": load_twice, "resolve": resolve}
"""What can be asked for."""


if __name__ == "__main__":
    main(sys.argv[1])
