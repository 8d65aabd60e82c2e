"""Runs of the toy plugin, in processes of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import toy
import yaml
from warm import WarmPython

PLUGIN = Path(toy.__file__)


class Workspace:
    """An empty directory with models, a config, and `fb` in it."""

    def __init__(self, root: Path, python: WarmPython) -> None:
        self.root, self._python = root, python
        self.models = toy.make_models(root / "models")
        self.config = {
            "method": {"name": "mean"},
            "modelpool": {
                "source": "mlp",
                "base": self.models["base"],
                "models": {name: path for name, path in self.models.items() if name != "base"},
            },
            "taskpool": {"task": "blobs", "tasks": {"left": {}, "right": {"shift": 1.0}}},
        }

    def write(self, **changes) -> Path:
        """Write the config, sections replaced."""
        path = self.root / "mine.yaml"
        path.write_text(yaml.safe_dump({**self.config, **changes}))
        return path

    def fb(self, *words: str, env: dict[str, str] | None = None, timeout: float = 120):
        """Run `fb WORDS` here with only the toy plugin."""
        words = ("--no-plugins", "--plugin", str(PLUGIN), *words)
        return self._python.fb(*words, cwd=self.root, env=self.environment(env), timeout=timeout)

    def command(self, *words: str) -> list[str]:
        """What starts `fb WORDS` as a process that can be sent signals."""
        # A shell starts background jobs deaf to Ctrl-C, and their children inherit it.
        hear = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        main = f"{hear}; from fusionbench_core.__main__ import program; program()"
        return [sys.executable, "-c", main, "--no-plugins", "--plugin", str(PLUGIN), *words]

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        return {
            **os.environ,
            "FB_CACHE_HOME": str(self.root / "cache"),
            "FB_CONFIG_HOME": str(self.root / "config"),
            "PYTHONPATH": str(PLUGIN.parent),
            **(extra or {}),
        }


@pytest.fixture(scope="session")
def python():
    """Where `fb` runs."""
    python = WarmPython("torch", "fusionbench_core.run.runner", "fusionbench_core.report.html")
    yield python
    python.close()


@pytest.fixture
def workspace(tmp_path, python) -> Workspace:
    return Workspace(tmp_path, python)
