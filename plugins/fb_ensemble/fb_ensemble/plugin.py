"""What this plugin provides: light records, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Iterable

from fb_ensemble.records import BUILDERS, ENTRIES
from fusionbench_core import BuilderRecord, ConfigRecord, MethodRecord, hookimpl


@hookimpl
def fb_methods() -> Iterable[MethodRecord]:
    return ENTRIES


@hookimpl
def fb_builders() -> Iterable[BuilderRecord]:
    return BUILDERS


@hookimpl
def fb_configs() -> Iterable[ConfigRecord]:
    return (ConfigRecord(package="fb_ensemble.configs"),)
