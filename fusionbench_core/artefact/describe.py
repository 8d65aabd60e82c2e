"""References and methods as plain data, for manifests and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fusionbench_core.methods.method import Method
from fusionbench_core.pools.pool import ModelPool, PooledModel
from fusionbench_core.pools.source import ModelSource
from fusionbench_core.records import MethodRecord

TRUST = "trust_remote_code"
"""Never written down: whoever loads an artefact decides for themselves, not whoever made it."""


def describe_source(source: ModelSource) -> dict[str, Any]:
    """`name` and `parameters` that open the same model from any working directory."""
    parameters = source.model_dump(mode="json", exclude_defaults=True)
    parameters.pop(TRUST, None)
    for key, value in parameters.items():
        if isinstance(value, str) and not value.startswith("pkg://") and Path(value).exists():
            parameters[key] = str(Path(value).resolve())
    return {"name": source.record.name, "parameters": parameters}


def describe_method(method: Method, record: MethodRecord | None = None) -> dict[str, Any]:
    """Name, parameters and provenance of a method."""
    record = record or method.record
    origin = record.origin
    return {
        "name": record.full_name,
        "parameters": method.model_dump(mode="json"),
        "distribution": origin.distribution if origin else None,
        "version": origin.version if origin else None,
    }


def describe_pool(pool: ModelPool) -> dict[str, Any]:
    """References of the base and the models."""
    return {
        "base": reference_of(pool.base) if pool.base else None,
        "models": {name: reference_of(model) for name, model in pool.models.items()},
    }


def reference_of(model: PooledModel) -> str:
    """How the user named a model; a hub id with the commit that it stood for."""
    if model.source is None:
        return "in memory"
    commit = model.source.commit()
    return f"{model.source.path.partition('@')[0]}@{commit}" if commit else model.source.path
