"""What all ensemble methods do: refer to the pool's models, store none of their weights."""

from __future__ import annotations

from typing import Any

from fb_ensemble.builder import make_predictor
from fusionbench_core import Fused, ModelPool


def ensemble(pool: ModelPool, **arguments: Any) -> Fused:
    """An ensemble of all models of the pool, which its artefact refers to by name.

    Args:
        pool: The models.
        arguments: How outputs are combined; see `make_predictor`.
    """
    arguments = {"members": list(pool.names), **arguments}
    predictor = make_predictor(arguments, pool.module)
    return Fused.of_module(
        predictor,
        builder="ensemble/predictor",
        arguments=arguments,
        tensors={},
        details={"parameters": sum(parameter.numel() for parameter in predictor.parameters())},
    )
