"""MaTS."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.data_driven.gradient_gram import WIDEST
from fb_merging.data_driven.matching import statistic_of
from fb_merging.data_driven.records import MATS
from fb_merging.operations.combine import mean
from fusionbench_core import Capabilities, TensorGroup, TensorMethod, implements


@implements(MATS)
class Mats(TensorMethod):
    r"""Match the models in their task subspaces: solve Fisher merging's equation by conjugate gradients.

    For a linear weight $W_t$, shape `(out, in)`, with the Gram matrices $A_t$, `(in, in)`, of its inputs and
    $B_t$, `(out, out)`, of the gradients at its outputs, whose Kronecker product is the Fisher information:

    $$\sum_t B_t\,(W - W_t)\,A_t = 0$$

    Notes:
        Conjugate gradients start from the simple average and make `iterations` steps, or fewer if the
        residual is as small as rounding. With `fisher="gram"` all $B_t$ are the identity: the equation of
        RegMean without shrinking.
        All other tensors are averaged, and with `fisher="kfac"` layers with over `widest` outputs, those of a
        vocabulary for instance: $B_t$ takes the square of that number.
        The paper chooses the start and the number of steps by validation; the authors' code shrinks
        off-diagonals like RegMean if asked to.

    Reference:
        Tam et al., Merging by Matching Models in Task Parameter Subspaces, TMLR 2024, arXiv:2312.04339.
    """

    iterations: int = Field(default=100, ge=0, description="steps of conjugate gradients")
    fisher: Literal["kfac", "gram"] = Field(
        default="kfac", description="curvature from inputs and gradients, or from inputs alone"
    )
    samples: int = Field(default=256, gt=0, description="samples a task that matrices are collected on")
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="split the samples come from; test only if the run is transductive"
    )
    widest: int = Field(default=WIDEST, gt=0, description="layers with more outputs are averaged (kfac)")

    @property
    def capabilities(self) -> Capabilities:
        """The record's; inputs alone need one statistic."""
        declared = self.record.capabilities
        return declared if self._kfac else dataclasses.replace(declared, statistics=("gram",))

    def statistics(self) -> Mapping[str, Mapping[str, Any]]:
        each = {name: {"samples": self.samples, "split": self.split} for name in self.capabilities.statistics}
        return (
            {**each, "gradient_gram": {**each["gradient_gram"], "widest": self.widest}}
            if self._kfac
            else each
        )

    def scratch(self, name: str, shape: tuple[int, ...], models: int) -> float:
        if len(shape) != 2 or 0 in shape or (self._kfac and shape[0] > self.widest):
            return 2 * models + 5
        # Statistics of inputs and of outputs are square, and can be larger than the weight.
        m, n = shape
        return super().scratch(name, shape, models) * max(1.0, n / m, m / n if self._kfac else 0.0)

    @property
    def _kfac(self) -> bool:
        return self.fisher == "kfac"

    def merge(self, group: TensorGroup) -> Tensor:
        average = mean(group.models)
        size = group.shape if len(group.shape) == 2 else (None, None)
        inputs = statistic_of(group, "mats", "gram", (size[1], size[1]))
        outputs = []
        if self._kfac:
            outputs = statistic_of(group, "mats", "gradient_gram", (size[0], size[0]))
            if not outputs:
                return average
        if not inputs or not average.numel():
            return average
        apart = [(model - average).double() for model in group.models]
        curvature = _Curvature([each.double() for each in inputs], [each.double() for each in outputs])
        start = torch.zeros_like(apart[0])
        change = conjugate_gradients(curvature.sum, curvature.right_hand_side(apart), start, self.iterations)
        return average + change.to(average.dtype)


class _Curvature:
    """The linear maps $X \\mapsto B_t X A_t$."""

    def __init__(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self._inputs, self._outputs = inputs, outputs

    def sum(self, matrix: Tensor) -> Tensor:
        """The sum of all maps at one matrix."""
        return self.right_hand_side([matrix] * len(self._inputs))

    def right_hand_side(self, matrices: Sequence[Tensor]) -> Tensor:
        """The sum of each map at a matrix of its own."""
        total = torch.zeros_like(matrices[0])
        for position, (gram, matrix) in enumerate(zip(self._inputs, matrices)):
            seen = matrix @ gram
            total += self._outputs[position] @ seen if self._outputs else seen
        return total


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], target: Tensor, start: Tensor, iterations: int
) -> Tensor:
    """Approximate solution of a symmetric positive semi-definite system in matrices of one shape, in fp64.

    Args:
        apply: The linear map.
        target: Right-hand side, in the range of the map.
        start: First guess.
        iterations: Steps at most; it ends when the residual is below rounding.
    """
    solution = start.clone()
    residual = target - apply(solution)
    direction = residual.clone()
    size = float(residual.square().sum())
    smallest = (torch.finfo(target.dtype).eps ** 2) * float(target.square().sum())
    for _ in range(iterations):
        if size <= smallest:
            break
        image = apply(direction)
        curvature = float((direction * image).sum())
        if curvature <= 0:
            break
        solution.add_(direction, alpha=size / curvature)
        residual.sub_(image, alpha=size / curvature)
        previous, size = size, float(residual.square().sum())
        direction.mul_(size / previous).add_(residual)
    return solution
