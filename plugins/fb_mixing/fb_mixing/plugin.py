"""What this plugin provides: light records, nothing heavy imported."""

from __future__ import annotations

from collections.abc import Iterable

from fb_mixing.depth import records as depth
from fb_mixing.ensembling import records as ensembling
from fb_mixing.pruning import records as pruning
from fb_mixing.recombination import records as recombination
from fb_mixing.smile import records as smile
from fb_mixing.sparse import records as sparse
from fusionbench_core.hookspecs import hookimpl
from fusionbench_core.records import BuilderRecord, MethodRecord

_FAMILIES = (smile, ensembling, sparse, depth, recombination, pruning)

ENTRIES = tuple(record for family in _FAMILIES for record in family.ENTRIES)
"""All methods of this plugin."""

BUILDERS = tuple(record for family in _FAMILIES for record in family.BUILDERS)
"""All builders of this plugin."""


@hookimpl
def fb_methods() -> Iterable[MethodRecord]:
    return ENTRIES


@hookimpl
def fb_builders() -> Iterable[BuilderRecord]:
    return BUILDERS
