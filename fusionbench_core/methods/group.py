"""What a tensor method sees: the same piece of one tensor, of every model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from fusionbench_core.errors import MissingCapability
from fusionbench_core.randomness import uniform_block


class TensorGroup:
    """The same piece of one tensor from every model, in the accumulation dtype.

    All tensors of a group have one shape: `(n,)` for element-wise methods, `(rows, …)` for row-wise,
    and the tensor's own for whole-tensor methods. They are the method's to keep or overwrite: the
    engine hands out copies.

    Attributes:
        name: Name of the tensor.
        shape: Shape of the whole tensor, of which this may be a piece.
        start: Index of the first entry of this piece in the flattened tensor.
        names: Names of the models, in the order of `models`.
        models: One tensor a model.
        survey: Result of the method's survey, None without one.
        statistics: Statistic name -> one value a model: a tensor, or None where the statistic has
            nothing for this tensor.
        layer: Index of the layer this tensor belongs to, counted from 0; None outside the layer stack.
        layers: Number of layers of the stack it belongs to; None outside.
    """

    def __init__(
        self,
        *,
        name: str,
        shape: tuple[int, ...],
        start: int,
        names: Sequence[str],
        models: Sequence[Tensor],
        base: Tensor | Callable[[], Tensor] | None,
        seed: int,
        survey: Any = None,
        statistics: Mapping[str, Sequence[Tensor | None]] | None = None,
        layer: int | None = None,
        layers: int | None = None,
    ) -> None:
        self.name = name
        self.shape = shape
        self.start = start
        self.names = tuple(names)
        self.models = list(models)
        self.survey = survey
        self.statistics = statistics or {}
        self.layer = layer
        self.layers = layers
        self._base = base
        self._seed = seed

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
        if not isinstance(self._base, Tensor):
            self._base = self._base()
        return self._base

    @cached_property
    def deltas(self) -> list[Tensor]:
        """Task vectors: one `model - base` a model."""
        return [model - self.base for model in self.models]

    def uniform(self, model: str) -> Tensor:
        """Uniform random numbers in [0, 1) of this piece's shape, fp32.

        Keyed by (seed, model, tensor, position): the same bits whatever the threads, the sharding,
        the order of models and tensors, and the cut into pieces.
        """
        piece = self.models[0]
        flat = uniform_block(self._seed, model, self.name, self.start, self.start + piece.numel())
        return flat.view(piece.shape)
