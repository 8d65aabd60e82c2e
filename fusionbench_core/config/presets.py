"""The directories that configs are looked up in: the user's, the plugins' presets, the core's."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fusionbench_core.errors import ConfigError
from fusionbench_core.records import ConfigRecord
from fusionbench_core.suggest import did_you_mean

CORE = Path(__file__).parent / "presets"
MAX_BYTES = 1024 * 1024
"""Largest config file that is read."""


@dataclass(frozen=True)
class Presets:
    """An ordered search path; the first directory that holds a file wins."""

    directories: tuple[Path, ...]

    @classmethod
    def over(cls, user: Path | None, records: Iterable[ConfigRecord]) -> Presets:
        """The user's directory first, then each plugin's, then the core's own."""
        found = [package_directory(record.package) for record in records]
        ordered = [user, *found, CORE]
        return cls(tuple(dict.fromkeys(path.resolve() for path in ordered if path is not None)))

    def find(self, name: str) -> Path | None:
        """The file of a config such as `clip_ta8` or `modelpool/clip-vit-base-patch32_TA8`."""
        for directory in self.directories:
            file = directory / f"{name}.yaml"
            if file.is_file():
                return file
        return None

    def options(self, group: str) -> list[str]:
        """The presets of one group, sub-directories included; sorted."""
        return sorted({name for name, _ in self._walk(group)})

    def roots(self) -> list[str]:
        """The names that `--config-name` accepts at the top of the search path."""
        return sorted({file.stem for directory in self.directories for file in directory.glob("*.yaml")})

    def all(self) -> Iterator[tuple[str, Path]]:
        """`(name, file)` of every preset, e.g. `modelpool/clip8`; the first of a name only."""
        seen = set()
        for name, file in sorted(self._walk("")):
            if name not in seen:
                seen.add(name)
                yield name, self.find(name) or file

    def is_group(self, name: str) -> bool:
        """Whether some directory holds presets of that group."""
        return bool(name) and any((directory / name).is_dir() for directory in self.directories)

    def _walk(self, group: str) -> Iterator[tuple[str, Path]]:
        for directory in self.directories:
            top = directory / group
            for file in top.rglob("*.yaml"):
                yield file.relative_to(top).with_suffix("").as_posix(), file


def package_directory(package: str) -> Path | None:
    """Where a package lies, found without running its code; None if it is not there."""
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        directory = Path(location, *rest)
        if directory.is_dir():
            return directory
    return None


def check_size(file: Path) -> None:
    """Refuse a config that is larger than any config is.

    Raises:
        ConfigError: The file holds more than 1 MiB.
    """
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(
            "a config file is too large",
            file=file,
            why=f"{size} bytes; at most {MAX_BYTES} are read",
            fix="put weights and data beside the config, not in it",
        )


def unknown_preset(group: str, name: str, available: list[str]) -> ConfigError:
    """The error for a config or preset that does not exist."""
    return ConfigError(
        f"there is no {group} {name!r}" if group == "config" else f"there is no {group} preset {name!r}",
        why=f"there are: {', '.join(available)}" if available else "no installed plugin offers one",
        fix=did_you_mean(name, available)
        or "fb list configs shows the presets; a path to a YAML file works too",
    )
