"""Replace feed-forward modules of any model by sparse mixtures."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fb_mixing.modules import count, dotted, put_module, tensors_inside
from fb_mixing.pooled import model_tensor
from fb_mixing.sparse.mixture import SparseMixture
from fusionbench_core import Fused, ModelPool, UnsupportedArchitecture


def bytes_of_mixtures(pool: ModelPool, patterns: Sequence[str], experts: int, *, plain: bool) -> int:
    """Bytes of a model with so many experts for each of its modules that fit the patterns, from headers.

    Args:
        plain: Whether it is held in the dtypes of its files.
    """
    checkpoint = pool.reference_model.checkpoint
    inside = tensors_inside(pool, patterns).values()
    whole = sum(checkpoint.info(key).nbytes for key in checkpoint) if plain else pool.live_bytes(_first(pool))
    copied = sum(info.nbytes if plain else max(info.nbytes, 4 * info.numel) for info in inside)
    return whole + (experts - 1) * copied


def _first(pool: ModelPool) -> str | None:
    return None if pool.base else pool.names[0]


@torch.no_grad()
def mixtures_in(
    module: nn.Module,
    pool: ModelPool,
    routers: Mapping[str, Tensor],
    experts: Sequence[str | None],
    top_k: int,
) -> Fused:
    """`module` with mixtures in place of its feed-forward modules.

    Args:
        module: A live module, which is changed.
        pool: Where the experts' weights are read.
        routers: Dotted name of a feed-forward module -> weights of its router, `(experts, in)`.
        experts: Models that the experts come from; None for the module itself.
        top_k: Experts that see a token.
    """
    details = {"base_parameters": count(module), "experts": len(experts)}
    active = count(module)
    for name, router in routers.items():
        dense = module.get_submodule(name)
        mixture = SparseMixture(
            [_expert(dense, name, pool, model) for model in experts], router.shape[1], top_k=top_k
        )
        mixture.router.copy_(router)
        active += router.numel() + (top_k - 1) * count(dense)
        module = put_module(module, name, mixture)
    arguments = {
        "modules": {name: router.shape[1] for name, router in routers.items()},
        "experts": len(experts),
        "top_k": top_k,
    }
    return Fused.of_module(
        module.requires_grad_(False).eval(),
        builder="mixing/sparse_mixtures",
        arguments=arguments,
        details={**details, "parameters": count(module), "active_parameters": active},
    )


def input_width(module: nn.Module, name: str) -> int:
    """Size of the last dimension of a feed-forward module's input.

    Raises:
        UnsupportedArchitecture: if it holds no linear layer that tells.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            return layer.in_features
        if type(layer).__name__ == "Conv1D":  # GPT-2's linear layer, transposed
            return layer.get_parameter("weight").shape[0]
    raise UnsupportedArchitecture(
        f"{name} holds no linear layer",
        why="the router must know the size of its input",
        fix="name modules that work on the last dimension in method.modules",
    )


def _expert(dense: nn.Module, name: str, pool: ModelPool, model: str | None) -> nn.Module:
    expert = copy.deepcopy(dense)
    if model is not None:
        for key, tensor in expert.state_dict().items():
            tensor.copy_(model_tensor(pool, model, dotted(name, key), tensor))
    return expert
