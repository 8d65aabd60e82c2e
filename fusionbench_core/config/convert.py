"""Configs of other tools, read by the converters that plugins provide."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fusionbench_core.config.presets import check_size
from fusionbench_core.errors import ConfigError, FusionError, NotFound, PluginBroken
from fusionbench_core.registry import Registry


@dataclass(frozen=True)
class Converted:
    """A config of ours that does what a config of another tool does.

    Attributes:
        values: The root config.
        notes: Pairs of a section and a remark: what is done otherwise, or ignored.
    """

    values: Mapping[str, Any]
    notes: tuple[tuple[str, str], ...] = ()

    def to_yaml(self) -> str:
        """The config with its remarks as comments, for `fb run --config-path FILE`."""
        parts = [_comment(note) for section, note in self.notes if section not in self.values]
        for section, value in self.values.items():
            parts += [_comment(note) for of, note in self.notes if of == section]
            parts.append(yaml.dump({section: value}, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
        return "".join(parts)


def convert(file: Path, registry: Registry, tool: str) -> Converted:
    """What a config file of another tool asks for.

    Raises:
        NotFound: if there is no such file.
        UnknownName: if no plugin converts configs of the tool.
        ConfigError: if the file is no config of it, or cannot be converted.
    """
    if not file.is_file():
        raise NotFound(f"there is no file {file}", fix="check the path")
    check_size(file)
    record = registry.find("converter", tool)
    try:
        converted = registry.resolve(record)(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError("the config is no text in UTF-8", file=file, why=str(error)) from error
    except FusionError as error:
        error.where = {"file": str(file), **error.where}
        raise
    if not isinstance(converted, Converted):
        raise PluginBroken(f"{record.full_name} gave a {type(converted).__name__}, not a Converted")
    return converted


def _comment(note: str) -> str:
    return textwrap.fill(note, 108, initial_indent="# ", subsequent_indent="#   ") + "\n"


class _Dumper(yaml.SafeDumper):
    """Short lists on one line, longer ones entry by entry; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Row(dict[str, Any]):
    """A mapping on one line."""


def _sequence(dumper: yaml.SafeDumper, data: list[Any] | tuple[Any, ...]) -> yaml.Node:
    rows = [
        _Row(each) if isinstance(each, dict) and all(map(_is_flat, each.values())) else each for each in data
    ]
    return dumper.represent_sequence("tag:yaml.org,2002:seq", rows, flow_style=_is_flat(data))


def _is_flat(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return not any(isinstance(each, (dict, list, tuple)) for each in value)
    return not isinstance(value, dict)


_Dumper.add_representer(list, _sequence)
_Dumper.add_representer(tuple, _sequence)
_Dumper.add_representer(
    _Row,
    lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", dict(data), flow_style=True),
)
