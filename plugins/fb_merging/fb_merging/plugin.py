"""What this plugin provides: light records, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Iterable

from fb_merging.analysis import records as analysis
from fb_merging.averages import records as averages
from fb_merging.compression import records as compression
from fb_merging.conditioned import records as conditioned
from fb_merging.continual import records as continual
from fb_merging.data_driven import records as data_driven
from fb_merging.learned import records as learned
from fb_merging.mergekit import records as mergekit
from fb_merging.post import records as post
from fb_merging.spectral import records as spectral
from fb_merging.task_vectors import records as task_vectors
from fb_merging.varied import records as varied
from fusionbench_core.hookspecs import hookimpl
from fusionbench_core.records import (
    BuilderRecord,
    CommandRecord,
    ConfigRecord,
    ConverterRecord,
    MethodRecord,
    StatisticRecord,
)

_FAMILIES = (
    averages,
    task_vectors,
    spectral,
    continual,
    post,
    conditioned,
    compression,
    data_driven,
    learned,
    varied,
)

ENTRIES = tuple(record for family in _FAMILIES for record in family.ENTRIES)
"""All methods of this plugin."""


@hookimpl
def fb_methods() -> Iterable[MethodRecord]:
    return ENTRIES


@hookimpl
def fb_builders() -> Iterable[BuilderRecord]:
    return (*conditioned.BUILDERS, *learned.BUILDERS)


@hookimpl
def fb_statistics() -> Iterable[StatisticRecord]:
    return data_driven.STATISTICS


@hookimpl
def fb_configs() -> Iterable[ConfigRecord]:
    return (ConfigRecord(package="fb_merging.configs"),)


@hookimpl
def fb_commands() -> Iterable[CommandRecord]:
    return (analysis.ANALYSE,)


@hookimpl
def fb_converters() -> Iterable[ConverterRecord]:
    return (mergekit.MERGEKIT,)
