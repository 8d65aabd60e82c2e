"""What a tensor method sees: the same piece of one tensor, of every model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fusionbench_core.checkpoints.finite import surely_finite
from fusionbench_core.errors import MissingCapability
from fusionbench_core.layers import Place, place_of
from fusionbench_core.methods.arithmetic import shifted_base, weighted_sum
from fusionbench_core.methods.operand import Operand
from fusionbench_core.methods.stored import StoredPieces
from fusionbench_core.randomness import uniform_block

if TYPE_CHECKING:
    from fusionbench_core.engine.cache import TensorCache
    from fusionbench_core.methods.method import Method

_CPU = torch.device("cpu")

_NOT_OURS = {"builtins", "abc", "typing", "pydantic"}
"""Packages whose source says nothing about what a method computes."""


class TensorGroup:
    """The same piece of one tensor from every model, in the accumulation dtype.

    All tensors of a group have one shape: `(n,)` for element-wise methods, `(rows, …)` for row-wise,
    and the tensor's own for whole-tensor methods. They are the method's to keep or overwrite: the
    engine hands out copies. Sums are faster by :meth:`total`, :meth:`mean` and
    :meth:`shifted_base`, which make none.

    Attributes:
        name: Name of the tensor.
        shape: Shape of the whole tensor, of which this may be a piece.
        start: Index of the first entry of this piece in the flattened tensor.
        names: Names of the models, in the order of `models`.
        models: One tensor a model; read when asked for.
        survey: Result of the method's survey, None without one.
        statistics: Statistic name -> one value a model: a tensor, or None where the statistic has
            nothing for this tensor.
        layer: Index of the layer this tensor belongs to, counted from 0; None outside the layer stack.
        layers: Number of layers of the stack it belongs to; None outside.
        device: Where all its tensors are.
    """

    def __init__(
        self,
        *,
        name: str,
        shape: tuple[int, ...],
        start: int,
        names: Sequence[str],
        models: Sequence[Tensor | Operand],
        base: Tensor | Operand | None,
        seed: int,
        survey: Any = None,
        statistics: Mapping[str, Sequence[Tensor | None]] | None = None,
        layer: int | None = None,
        layers: int | None = None,
        cache: TensorCache | None = None,
        device: torch.device = _CPU,
    ) -> None:
        self.name = name
        self.shape = shape
        self.start = start
        self.names = tuple(names)
        self._operands = list(models)
        self.survey = survey
        self.statistics = statistics or {}
        self.layer = layer
        self.layers = layers
        self._base = base
        self._seed = seed
        self._cache = cache
        self.device = device

    @property
    def has_base(self) -> bool:
        """Whether the pool has a base; looking at it reads nothing."""
        return self._base is not None

    @property
    def base(self) -> Tensor:
        """The base model's piece; read only when asked for.

        Raises:
            MissingCapability: if the pool has no base. A method that always needs one declares
                `base="required"`, and the plan fails first.
        """
        if self._base is None:
            raise MissingCapability(
                "this method needs a base model, and the pool has none", fix="add `modelpool.base`"
            )
        if isinstance(self._base, Operand):
            self._base = self._base.values()
        return self._base

    @cached_property
    def models(self) -> list[Tensor]:
        return [one.values() if isinstance(one, Operand) else one for one in self._operands]

    @cached_property
    def deltas(self) -> list[Tensor]:
        """Task vectors: one `model - base` a model."""
        base = self.base
        return [one.minus(base) if isinstance(one, Operand) else one - base for one in self._operands]

    def total(self, weights: Sequence[float] | None = None) -> Tensor:
        """$\\sum_i w_i \\theta_i$, in the order of the models; weights are 1 by default."""
        return self._total(weights or [1.0] * len(self._operands), 1)

    def mean(self) -> Tensor:
        """$\\frac1n \\sum_i \\theta_i$, in the order of the models."""
        return self._total([1.0] * len(self._operands), len(self._operands))

    def shifted_base(self, scale: float = 1.0, weights: Sequence[float] | None = None) -> Tensor:
        """$\\theta_0 + \\lambda \\sum_i w_i (\\theta_i - \\theta_0)$, in the order of the models.

        Args:
            scale: $\\lambda$.
            weights: One a model, 1 by default.
        """
        weights = weights or [1.0] * len(self._operands)
        if (pieces := self.stored()) and (shifted := shifted_base(pieces, weights, scale)):
            return self._sound(*shifted)
        base = self.base
        total, scratch = torch.zeros_like(base), torch.empty_like(base)
        for one, weight in zip(self._operands, weights):
            delta = one.minus(base, scratch) if isinstance(one, Operand) else one - base
            total.add_(delta, alpha=weight)
        return torch.add(base, total, alpha=scale)

    def stored(self) -> StoredPieces | None:
        """The pieces as they are stored, with the base's, for functions in C that subtract as they go.

        Such functions tell when they find NaN or Inf, and :meth:`check` is called then. None where they
        cannot read the pieces, and where `base` or `deltas` were taken, which may have been overwritten:
        compute in torch.
        """
        untouched = isinstance(self._base, Operand) and "deltas" not in self.__dict__
        return self._stored(self._base) if untouched else None

    def check(self) -> None:
        """Raise NonFiniteInput if a piece of a model, or of the base, holds NaN or Inf."""
        for one in (*self._operands, self._base):
            if isinstance(one, Operand):
                one.check()

    @property
    def place(self) -> Place:
        """Where the tensor lies: `before` the layers (embeddings), in the `layers`, or `after` them."""
        return place_of(self.name, self.layer)

    def only(self, names: Sequence[str]) -> TensorGroup:
        """The same group with these models alone, in this order; tensors are shared with this one."""
        chosen = [self.names.index(name) for name in names]
        return TensorGroup(
            name=self.name,
            shape=self.shape,
            start=self.start,
            names=names,
            models=[self._operands[index] for index in chosen],
            base=self._base,
            seed=self._seed,
            survey=self.survey,
            statistics={key: [each[index] for index in chosen] for key, each in self.statistics.items()},
            layer=self.layer,
            layers=self.layers,
            cache=self._cache,
            device=self.device,
        )

    def part(self, share: int) -> TensorGroup:
        """The first of `share` equal parts of the piece, flat: a sample for a survey."""
        flat = [one.first_part(share) for one in map(_operand, self._operands)]
        part = TensorGroup(
            name=self.name,
            shape=self.shape,
            start=self.start,
            names=self.names,
            models=flat,
            base=None if self._base is None else _operand(self._base).first_part(share),
            seed=self._seed,
            layer=self.layer,
            layers=self.layers,
            device=self.device,
        )
        if "deltas" in self.__dict__:
            part.deltas = [delta.reshape(-1)[: part.piece_shape[0]] for delta in self.deltas]
        return part

    def uniform(self, model: str) -> Tensor:
        """Uniform random numbers in [0, 1) of this piece's shape, fp32.

        Keyed by (seed, model, tensor, position): the same bits whatever the threads, the sharding,
        the order of models and tensors, and the cut into pieces.
        """
        stop = self.start + math.prod(self.piece_shape)
        drawn = uniform_block(self._seed, model, self.name, self.start, stop).view(self.piece_shape)
        return drawn.to(self.device)

    def cached(
        self,
        method: Method,
        inputs: Sequence[Tensor],
        compute: Callable[[], Tensor],
        *,
        apart_from: Sequence[str] = (),
    ) -> Tensor:
        """What `compute()` gives, or gave in an earlier run: the same bits, without the time.

        For what takes long and is the same for many parameters, so that trying them pays for it once: the
        factorisation that a coefficient is multiplied with afterwards.

        Args:
            method: Whose parameters decide, beside the inputs, what is computed.
            inputs: What it is computed from; nothing else of the models may be looked at.
            compute: Gives a tensor. It may call :meth:`uniform` if the method declares `random`.
            apart_from: Names of the parameters that do not matter.
        """
        if self._cache is None:
            return compute()
        facts = {"method": method.record.target, **method.model_dump(mode="json", exclude=set(apart_from))}
        if method.capabilities.random:
            facts = {**facts, "drawn": [self._seed, self.name, self.start, list(self.names)]}
        packages = {cls.__module__.partition(".")[0] for cls in type(method).__mro__} - _NOT_OURS
        if self.device.type == "cpu":
            return self._cache.get(facts, packages, inputs, compute)
        facts = {**facts, "device": torch.cuda.get_device_name(self.device)}
        seen = [tensor.cpu() for tensor in inputs]
        return self._cache.get(facts, packages, seen, lambda: compute().cpu()).to(self.device)

    @property
    def piece_shape(self) -> tuple[int, ...]:
        """Shape of the piece."""
        return tuple(self._operands[0].shape)

    def _total(self, weights: Sequence[float], divisor: float) -> Tensor:
        if (pieces := self._stored(None)) and (summed := weighted_sum(pieces, weights, divisor)):
            return self._sound(*summed)
        (first, *others), (weight, *rest) = self._operands, weights
        total = first.values() if isinstance(first, Operand) else first.clone()
        if weight != 1:
            total.mul_(weight)
        # One buffer for all: memory that is in the cache, and faults no pages.
        scratch = torch.empty_like(total)
        for one, weight in zip(others, rest):
            if isinstance(one, Operand):
                one.add_to(total, weight, scratch)
            else:
                total.add_(one, alpha=weight)
        if divisor != 1:
            total.div_(divisor)
        return self._sound(total, surely_finite(total))

    def _stored(self, base: Tensor | Operand | None) -> StoredPieces | None:
        """For functions that compute in fp32."""
        stored = []
        for one in self._operands if base is None else (*self._operands, base):
            if not isinstance(one, Operand) or one.dtype != torch.float32:
                return None
            stored.append(one.stored)
        return StoredPieces.of(stored) if base is None else StoredPieces.of(stored[:-1], stored[-1])

    def _sound(self, result: Tensor, finite: bool) -> Tensor:
        if not finite:
            self.check()
        return result.view(self.piece_shape)


def _operand(one: Tensor | Operand) -> Operand:
    return one if isinstance(one, Operand) else Operand(lambda: one.reshape(-1), one.dtype, tuple(one.shape))
