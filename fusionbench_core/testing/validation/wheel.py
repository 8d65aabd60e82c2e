"""A plugin's wheel, and what its metadata claims."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from fusionbench_core.errors import ConfigError
from fusionbench_core.plugins.discovery import CORE


@dataclass(frozen=True)
class Wheel:
    """A wheel on the disk.

    Attributes:
        path: The file.
        distribution: Its name.
        version: Its version.
        requires: The versions of the core that it claims; empty for any.
        extras: Names of its extras.
    """

    path: Path
    distribution: str
    version: str
    requires: SpecifierSet
    extras: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def installable(self) -> str:
        """What to ask pip for: the wheel, with the extra that its tests need if it has one."""
        extra = next((name for name in ("test", "tests", "testing") if name in self.extras), None)
        return f"{self.path}[{extra}]" if extra else str(self.path)

    @property
    def lowest_core(self) -> str | None:
        """The oldest core that is claimed, if the claim names one.

        `>=1.2,<2` and `~=1.2` name 1.2, `==1.2.*` names 1.2, and `>1.2` names none.
        """
        bounds = [each for each in self.requires if each.operator in (">=", "~=", "==", "===")]
        return bounds[0].version.removesuffix(".*") if bounds else None


def read_wheel(path: Path) -> Wheel:
    """The facts of a wheel.

    Raises:
        ConfigError: if it is no wheel, or does not depend on the core.
    """
    try:
        with ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            facts = HeaderParser().parsestr(archive.read(name).decode("utf-8"))
        needed = [Requirement(text) for text in facts.get_all("Requires-Dist") or ()]
    except (OSError, BadZipFile, StopIteration, UnicodeDecodeError, InvalidRequirement) as error:
        raise ConfigError(f"{path.name} is no wheel that can be read", why=str(error) or None) from error
    core = [one for one in needed if canonicalize_name(one.name) == CORE and one.marker is None]
    if not core:
        raise ConfigError(
            f"{facts['Name']} does not depend on {CORE}",
            wheel=path.name,
            why="so it claims no core to validate it with",
            fix=f'add "{CORE}>=1.0,<2" to its dependencies',
        )
    return Wheel(
        path,
        facts["Name"],
        facts["Version"],
        core[0].specifier,
        tuple(facts.get_all("Provides-Extra") or ()),
    )
