"""The parameters of a merged model, as a differentiable function of task-vector coefficients."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fusionbench_core import MethodError, ModelPool, NonFiniteInput


@dataclass(frozen=True)
class ParameterSpace:
    """All models `base + Σ_t λ_t τ_t` that a pool spans.

    Everything is in memory: with T models, T + 1 times the parameters in which some model differs from
    the base, in fp32 at least. The others, e.g. those that LoRA does not touch, are not in it.

    Attributes:
        base: Name of a parameter in `trunk.named_parameters()` -> its base value.
        vectors: Name -> task vectors of all models, `(T, *shape)`.
        buffers: Name -> mean of the models' floating-point buffers, e.g. running statistics. Means, because
            adding up differences could make a variance negative.
        aliases: Name of a parameter -> the names it is stored under: its own and those tied to it.
    """

    base: dict[str, Tensor] = field(default_factory=dict)
    vectors: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, pool: ModelPool, trunk: nn.Module, device: torch.device) -> ParameterSpace:
        """Read the tensors of `trunk` that are in the pool's scope, one at a time.

        Raises:
            NonFiniteInput: naming model and tensor.
            MethodError: if no parameter is in scope.
        """
        space, empty = cls(), True
        stored = set(pool.checkpoint().keys())
        for name, names in _tied_names(trunk).items():
            names = [each for each in names if each in stored and pool.merges(each)]
            if not names:
                continue
            empty = False
            base, parameter = _read(pool, None, names[0]).to(device), trunk.get_parameter(name)
            if base.dtype == parameter.dtype:
                # The same values, held once: whatever is computed replaces the trunk's own.
                parameter.data = base
            deltas = [_read(pool, model, names[0]).to(device) - base for model in pool]
            if any(delta.any() for delta in deltas):
                space.base[name], space.vectors[name] = base, torch.stack(deltas)
                space.aliases[name] = names
        for name, buffer in trunk.named_buffers():
            if name in stored and pool.merges(name) and buffer.is_floating_point():
                space.buffers[name] = torch.stack([_read(pool, model, name) for model in pool]).mean(0)
        if empty:
            raise MethodError(
                "no parameter of the model is in the pool's scope", fix="widen `modelpool.scope`"
            )
        return space

    def without(self, names: Collection[str]) -> ParameterSpace:
        """The space without some parameters; their aliases stay known."""
        rest = [name for name in self.base if name not in names]
        base, vectors = ({name: each[name] for name in rest} for each in (self.base, self.vectors))
        return dataclasses.replace(self, base=base, vectors=vectors)

    def merged(self, coefficients: Tensor) -> dict[str, Tensor]:
        """Name -> `base + Σ_t λ_t τ_t`, differentiable with respect to the coefficients.

        Args:
            coefficients: `(T, parameters)`, or `(T, 1)` for one a model.
        """
        columns = coefficients.expand(-1, len(self.base)).unbind(1)
        return {
            name: base + torch.tensordot(column.to(base.dtype), self.vectors[name], 1)
            for (name, base), column in zip(self.base.items(), columns)
        }

    def state(self, merged: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The merged state dict on the CPU, under all stored names; what is not in it is the base's."""
        state = {}
        for name, value in merged.items():
            state |= dict.fromkeys(self.aliases[name], value.detach().cpu())
        return {**state, **self.buffers}


def _tied_names(trunk: nn.Module) -> dict[str, list[str]]:
    """Name of each parameter -> all its names, its own first."""
    names: dict[int, list[str]] = {}
    for name, parameter in trunk.named_parameters(remove_duplicate=False):
        if parameter.is_floating_point():
            names.setdefault(id(parameter), []).append(name)
    return {each[0]: each for each in names.values()}


def _read(pool: ModelPool, model: str | None, name: str) -> Tensor:
    """A copy in fp32, or in fp64 if it is stored so."""
    raw = pool.checkpoint(model).tensor(name)
    values = raw.to(torch.promote_types(raw.dtype, torch.float32), copy=True)
    if not torch.isfinite(values).all():
        raise NonFiniteInput(
            "a tensor holds NaN or Inf",
            model=model or "the base",
            tensor=name,
            fix="repair or leave out this model",
        )
    return values
