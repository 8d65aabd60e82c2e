"""Which plugin a name, a directory or a file means."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from fusionbench_core.errors import ConfigError
from fusionbench_core.plugins import find
from fusionbench_core.suggest import did_you_mean


@dataclass(frozen=True)
class Target:
    """What to check, as the child is told."""

    title: str
    request: dict[str, str] = field(default_factory=dict)


def locate(what: str | Path) -> Target:
    """The plugin that a name, directory or file means.

    Raises:
        ConfigError: with what to do about it.
    """
    text, path = str(what), Path(what).expanduser()
    if text.endswith(".py"):
        if not path.is_file():
            raise ConfigError(f"there is no file {text}", fix="give the path of a plugin file")
        return Target(text, {"file": str(path.resolve()), "namespace": ""})
    name = _project(path) if path.is_dir() else text
    plugins = find(cached=False)
    wanted = name.lower().replace("_", "-")
    for plugin in plugins:
        if wanted in (plugin.namespace.replace("_", "-"), *plugin.distribution.lower().split(", ")):
            title = f"{plugin.distribution} {plugin.version}"
            return Target(title, {"file": "", "namespace": plugin.namespace})
    if path.is_dir():
        raise ConfigError(
            f"the project in {text} is not installed",
            why=f"its distribution is {name}, and no plugin of that name is installed",
            fix=f"pip install {text}",
        )
    names = [plugin.namespace for plugin in plugins] + [plugin.distribution for plugin in plugins]
    raise ConfigError(
        f"no plugin is called {name!r}",
        why="it is neither an installed plugin, nor a directory with a pyproject.toml, nor a .py file",
        fix=did_you_mean(name, names) or "`fb plugin list` shows what there is",
    )


def _project(directory: Path) -> str:
    file = directory / "pyproject.toml"
    try:
        text = file.read_text(encoding="utf-8")
    except OSError:
        raise ConfigError(
            f"{directory} is not a Python project",
            why="it has no pyproject.toml",
            fix="give its root directory",
        ) from None
    name = _toml_name(text)
    if name is None:
        raise ConfigError(f"{file} names no project", fix="add `name` to its [project] table")
    return name


def _toml_name(text: str) -> str | None:
    table = re.search(r"^\[project\]\s*$(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.search(r"^name\s*=\s*[\"']([^\"']+)[\"']", table.group(1), re.MULTILINE) if table else None
    return found.group(1) if found else None
