"""Render a project's files, and write them where nothing is yet."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, get_args

import fusionbench_core
from fusionbench_core.errors import ConfigError
from fusionbench_core.files import output_error
from fusionbench_core.scaffold.names import Names

Kind = Literal["method", "source", "task"]

KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a plugin may start with."""

COMMON = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    ".gitignore": "gitignore",
    ".github/workflows/ci.yml": "ci.yml",
    "{package}/__init__.py": "init.py",
    "{package}/py.typed": "py.typed",
    "tests/test_conformance.py": "test_conformance.py",
}
"""Path in the project -> template, for every kind."""

OF_KIND = {
    "method": {
        "{package}/plugin.py": "plugin.py",
        "{package}/{namespace}.py": "method.py",
        "tests/test_formula.py": "test_formula.py",
    },
    "source": {
        "{package}/plugin.py": "plugin.py",
        "{package}/{namespace}.py": "source.py",
        "tests/test_reading.py": "test_reading.py",
        "examples/make_models.py": "make_models.py",
        "examples/pool.yaml": "pool.yaml",
    },
    "task": {
        "{package}/plugin.py": "plugin.py",
        "{package}/{namespace}.py": "task.py",
        "tests/test_measuring.py": "test_measuring.py",
        "examples/measure.py": "measure.py",
        "examples/tasks.yaml": "tasks.yaml",
    },
}
"""Kind -> path in the project -> template."""


def new_plugin(names: Names, kind: Kind, directory: Path) -> list[Path]:
    """Write a new project; its files, in the order they were written.

    Raises:
        ConfigError: if something is there already.
        OutputError: if the directory cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(
            f"{directory} is there already",
            why="nothing is overwritten",
            fix="choose another name, or another place with --directory",
        )
    written = []
    for name, text in render(names, kind).items():
        path = directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise output_error(error, path) from error
        written.append(path)
    return written


def render(names: Names, kind: Kind) -> dict[str, str]:
    """Path in the project -> text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fusionbench_core.scaffold"),
        undefined=StrictUndefined,
        # `{{` and `{%` are at home in formulas and workflows.
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    facts = {
        "names": names,
        "kind": kind,
        "core": core_range(fusionbench_core.__version__),
        "version": fusionbench_core.__version__,
        "year": datetime.now(timezone.utc).year,
    }
    places = {path: f"common/{template}.j2" for path, template in COMMON.items()}
    places |= {path: f"{kind}/{template}.j2" for path, template in OF_KIND[kind].items()}
    return {
        path.format(package=names.package, namespace=names.namespace): environment.get_template(
            template
        ).render(facts)
        for path, template in places.items()
    }


def core_range(version: str) -> str:
    """The cores that a plugin made today works with.

    >>> core_range("1.4.2"), core_range("2.0.0rc1")
    ('>=1.4,<2', '>=2.0.0rc1,<3')
    """
    from packaging.version import Version

    parsed = Version(version)
    lowest = version if parsed.is_prerelease else f"{parsed.major}.{parsed.minor}"
    return f">={lowest},<{parsed.major + 1}"
