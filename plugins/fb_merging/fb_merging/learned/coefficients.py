"""Coefficients of task vectors: one a task, or one a task and layer or tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.operations.layers import layer_path
from fusionbench_core import ConfigError, matrix

Granularity = Annotated[
    Literal["task", "layer", "tensor"],
    Field(description="one coefficient a task, a task and layer, or a task and parameter tensor"),
]


def _learned(value: Mapping[str, Any]) -> Mapping[str, Any]:
    rows, columns, values = (list(value.get(key) or ()) for key in ("rows", "columns", "values"))
    if not values or len(values) != len(rows) or any(len(row) != len(columns) for row in values):
        raise ValueError("give a number, or `details.coefficients` of a report: rows, columns and values")
    return value


Start = float | Annotated[Mapping[str, Any], AfterValidator(_learned)]
"""What coefficients start from: one number for all, or the `coefficients` in the details of a report."""


class Coefficients(Parameterization):
    r"""$\theta^l = \theta_0^l + \sum_t \lambda_t^l \tau_t^l$, differentiable with respect to $\lambda$.

    Args:
        space: What is merged.
        models: Names of the models, in the order of the space.
        granularity: Which tensors share a coefficient.
        start: $\lambda$ at the beginning.
        bounds: What $\lambda$ is clamped to, without a gradient beyond; None for no bounds.
        normalize: $\lambda$ is the softmax over the models of what is learned, so that it adds up to 1.

    Raises:
        ConfigError: if `start` names other models or tensors.
    """

    def __init__(
        self,
        space: ParameterSpace,
        models: Sequence[str],
        granularity: str,
        start: Start = 0.3,
        *,
        bounds: tuple[float, float] | None = None,
        normalize: bool = False,
    ) -> None:
        self.space, self.models, self._bounds, self._normalize = space, tuple(models), bounds, normalize
        groups = [_group(name, granularity) for name in space.base]
        self.groups = list(dict.fromkeys(groups))
        device = next((base.device for base in space.base.values()), torch.device("cpu"))
        self._columns = torch.tensor(
            [self.groups.index(group) for group in groups], device=device, dtype=torch.long
        )
        wide = any(base.dtype == torch.float64 for base in space.base.values())
        values = _start(start, self.groups, self.models).to(device, torch.float64 if wide else torch.float32)
        if normalize and isinstance(start, Mapping):
            values = _logits(values)
        self.variables = {"coefficients": values.requires_grad_()}

    def each(self) -> Tensor:
        """One coefficient a task and parameter: `(tasks, parameters)`."""
        return self.spread(self._effective(self.variables["coefficients"]))

    def spread(self, values: Tensor) -> Tensor:
        """Values `(tasks, groups)` for all parameters of the groups: `(tasks, parameters)`."""
        return values.index_select(1, self._columns)

    def merged(self, step: int) -> dict[str, Tensor]:
        return self.space.merged(self.each())

    def details(self) -> dict[str, Any]:
        learned = self._effective(self.variables["coefficients"].detach())
        if not learned.numel():
            return {}
        return {
            "coefficients": matrix(
                learned.T,
                rows=self.groups,
                columns=self.models,
                title="Learned coefficients",
                row_label="what shares a coefficient",
                column_label="task vector",
            )
        }

    def _effective(self, values: Tensor) -> Tensor:
        values = values.softmax(0) if self._normalize else values
        return values if self._bounds is None else values.clamp(*self._bounds)


def _logits(values: Tensor) -> Tensor:
    """What has the softmax `values`, `(models, groups)`.

    Raises:
        ConfigError: if nothing has.
    """
    if (values <= 0).any() or not torch.allclose(values.sum(0), torch.ones(()).to(values), atol=1e-3):
        raise ConfigError(
            "the coefficients to start from are no shares",
            config="method.init_coefficient",
            why="with `normalize` the coefficients of a tensor are positive and add up to 1",
            fix="take `details.coefficients` of a run with `normalize`, or leave it out here",
        )
    return values.log()


def _group(name: str, granularity: str) -> str:
    """What a tensor shares its coefficient with; tensors outside of the layers have one of their own."""
    if granularity == "task":
        return "all"
    return (layer_path(name) if granularity == "layer" else None) or name


def _start(start: Start, groups: Sequence[str], models: Sequence[str]) -> Tensor:
    """fp32 `(models, groups)`."""
    if not isinstance(start, Mapping):
        return torch.full((len(models), len(groups)), start, dtype=torch.float32)
    if set(start["rows"]) != set(groups) or set(start["columns"]) != set(models):
        raise ConfigError(
            "the coefficients to start from are not those of these models",
            config="method.init_coefficient",
            why=f"there must be a row for each of {len(groups)} ({groups[0]}, …) and a column for each of "
            + ", ".join(models),
            fix="take `details.coefficients` of a run with the same models and granularity",
        )
    values = torch.tensor(start["values"], dtype=torch.float32)
    rows = [list(start["rows"]).index(group) for group in groups]
    columns = [list(start["columns"]).index(model) for model in models]
    return values[rows][:, columns].T.contiguous()
