"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import MethodRecord

ENTRIES: tuple[MethodRecord, ...] = ()
