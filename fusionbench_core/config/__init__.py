"""Configs are data: composed by Hydra, validated by pydantic, and never a Python path in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fusionbench_core.config.compose import Composed, compose, load_preset
from fusionbench_core.config.errors import explain

if TYPE_CHECKING:
    from fusionbench_core.config.schema import EngineConfig, FabricConfig, ReportConfig, RunConfig

__all__ = [
    "Composed",
    "EngineConfig",
    "FabricConfig",
    "ReportConfig",
    "RunConfig",
    "compose",
    "explain",
    "load_preset",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from fusionbench_core.config import schema

        return getattr(schema, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
