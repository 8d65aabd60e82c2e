"""Model sources and pools of models."""

from fusionbench_core.pools.pool import ModelPool, PooledModel
from fusionbench_core.pools.reference import resolve_path
from fusionbench_core.pools.scope import Scope
from fusionbench_core.pools.source import ModelSource

__all__ = ["ModelPool", "ModelSource", "PooledModel", "Scope", "resolve_path"]
