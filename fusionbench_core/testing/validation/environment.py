"""A virtual environment that holds a plugin and what it depends on."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusionbench_core.errors import FusionError
from fusionbench_core.testing import sandbox

TIME_LIMIT = 3600.0
"""Seconds that one command may take; installing torch takes some."""


class Environment:
    """A virtual environment, filled by the pip of this one.

    Args:
        root: Where it is made; must not exist.
        sources: Options that say where pip looks, e.g. `--find-links DIR`.
        borrowed: A directory of further packages that it sees, behind its own.

    Attributes:
        bin: Directory of its programs.
        site: Directory of what is installed in it.
        work: An empty directory, where programs run unless told otherwise.

    Raises:
        FusionError: if it cannot be made, or there is no pip.
    """

    def __init__(self, root: Path, sources: Sequence[str] = (), borrowed: Path | None = None) -> None:
        self.root, self._sources = root, list(sources)
        if importlib.util.find_spec("pip") is None:
            raise FusionError("there is no pip here", python=sys.executable, fix="python -m ensurepip")
        try:
            venv.create(root / "venv", with_pip=False, symlinks=os.name != "nt")
        except (OSError, subprocess.CalledProcessError) as error:
            raise FusionError("no virtual environment can be made", where=root, why=str(error)) from error
        self.bin = root / "venv" / ("Scripts" if os.name == "nt" else "bin")
        self.work, self._home = root / "work", root / "home"
        for directory in (self.work, self._home / "tmp"):
            directory.mkdir(parents=True)
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        self.site = Path(self.python("-c", code).stdout.strip())
        if borrowed is not None:
            (self.site / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")

    def pip(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        """`pip COMMAND WORDS`, with the configured index; both streams in `stdout`."""
        quiet = ["--disable-pip-version-check", "--no-input", "--python", str(self._interpreter)]
        line = [sys.executable, "-m", "pip", *quiet, command, *self._sources, *words]
        # Where packages come from is pip's configuration; nothing else that is secret is handed on.
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        return self._run(line, self.root, {**_public(os.environ), **kept}, merged=True)

    def python(self, *words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Its interpreter, in a home of its own and without anything secret but what is given here."""
        return self._run([str(self._interpreter), *words], cwd or self.work, self._clean(env))

    def fb(self, *words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Its `fb`, likewise."""
        return self._run([str(self.bin / "fb"), *words], cwd or self.work, self._clean(env))

    def version(self, distribution: str) -> str:
        """The version that is installed."""
        code = f"import importlib.metadata as m; print(m.version({distribution!r}))"
        return self.python("-c", code).stdout.strip()

    @property
    def _interpreter(self) -> Path:
        return self.bin / ("python.exe" if os.name == "nt" else "python")

    def _clean(self, env: Mapping[str, str]) -> dict[str, str]:
        path = os.pathsep.join([str(self.bin), os.environ.get("PATH", "")])
        return {**_public(sandbox.environment(self._home)), "PATH": path, **env}

    def _run(
        self, command: list[str], cwd: Path, env: Mapping[str, str], *, merged: bool = False
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                cwd=cwd,
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if merged else subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=TIME_LIMIT,
            )
        except subprocess.TimeoutExpired as error:
            said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
            return subprocess.CompletedProcess(command, 124, said, f"stopped after {TIME_LIMIT:.0f} s")


def _public(env: Mapping[str, str]) -> dict[str, str]:
    ours = ("PYTHON", "VIRTUAL_ENV", "FB_", "PIP_")
    return {
        name: value for name, value in env.items() if not name.startswith(ours) and not sandbox.secret(name)
    }


def borrow(directory: Path) -> Path:
    """Links to the packages of this environment, but for the core and all plugins.

    Raises:
        FusionError: if links cannot be made here.
    """
    import importlib_metadata

    from fusionbench_core.hookspecs import PROJECT
    from fusionbench_core.plugins.discovery import CORE

    ours = {CORE.replace("-", "_"), "fusionbench_core"}
    for point in importlib_metadata.entry_points(group=PROJECT):
        ours |= {point.value.partition(".")[0], _plain(point.dist.name) if point.dist else ""}
    directory.mkdir(parents=True)
    for site in dict.fromkeys(
        path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")
    ):
        for entry in Path(site).iterdir():
            name = _plain(entry.name.removesuffix(".dist-info").partition("-")[0].removesuffix(".py"))
            link = directory / entry.name
            if name in ours or entry.suffix == ".pth" or link.exists():
                continue
            try:
                link.symlink_to(entry)
            except OSError as error:
                raise FusionError(
                    "packages cannot be borrowed here", why=str(error), fix="leave out --borrow"
                ) from error
    return directory


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")
