"""Gossip merging: AdaMerging among neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fb_merging.learned.coefficients import Coefficients, Granularity
from fb_merging.learned.learned_method import LearnedMethod, loss_curve
from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.records import GOSSIP
from fusionbench_core import (
    AdaptationTask,
    Batch,
    Fused,
    FusionJob,
    TaskModels,
    Training,
    frozen,
    implements,
    mean_entropy,
    tasks_of,
)


@implements(GOSSIP)
class Gossip(LearnedMethod):
    r"""Let every model merge with its neighbours, round by round, and average what all of them became.

    Node i starts as model i and knows its task. In each round all nodes at once merge with the nodes
    $N(i)$ that they hear, themselves among them, and learn how much of each on the data they know by then:

    $$\theta_i^{r+1} = \theta_0 + \sum_{j \in N(i)} \lambda_{ij} (\theta_j^r - \theta_0), \qquad
      \min_\lambda \sum_{t \in K_i^r} \mathbb E_{x \sim D_t}\, H\big(f_t(x; \theta_i^{r+1})\big), \qquad
      K_i^r = \bigcup_{j \in N(i)} K_j^{r-1}$$

    The result is the mean of all nodes after the last round. In a ring, nodes hear the one before and the one
    after them; with `topology="rotate"` the `neighbours` next ones.

    Notes:
        Nodes stay combinations of the task vectors: no more than those are in memory, and the report's
        coefficients are those of the result, which `adamerging` takes as its `init_coefficient`.
        FusionBench's algorithm, of which there is no paper; it also keeps each node. There every round
        starts from 0.3 for each heard node, as here, and takes 400 steps in each of 20 rounds; the defaults
        here are moderate. Data as for `adamerging`.

    Reference:
        Tang et al., FusionBench: A Comprehensive Benchmark of Deep Model Fusion, 2024, arXiv:2406.03280;
        its method `layer_wise_gossip`.
    """

    steps: int = Field(default=20, ge=0, description="optimiser steps of a node in a round")
    rounds: int = Field(default=5, ge=0, description="how often all nodes merge with their neighbours")
    topology: Literal["ring", "rotate"] = Field(
        default="ring", description="nodes hear the one before and the one after, or only those after them"
    )
    neighbours: int | None = Field(
        default=None, ge=1, description="how many next nodes are heard in topology rotate; 1 if not given"
    )
    own_data: bool = Field(
        default=True, description="adapt to the tasks a node has heard of, not to all from the beginning"
    )
    granularity: Granularity = "tensor"
    init_coefficient: float = Field(
        default=0.3, description="what all coefficients start from in every round"
    )

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """A few steps show all there is to check."""
        return {"steps": 2, "rounds": 2, "learning_rate": 0.01, "batch_size": 8}

    @model_validator(mode="after")
    def _a_ring_has_two_neighbours(self) -> Gossip:
        if self.neighbours is not None and self.topology != "rotate":
            raise ValueError("neighbours is for topology=rotate; a ring has the one before and the one after")
        return self

    def parameterize(self, job: FusionJob, space: ParameterSpace) -> Coefficients:
        return Coefficients(space, tuple(job.pool), self.granularity, self.init_coefficient)

    def fuse(self, job: FusionJob) -> Fused:
        trunk, space = self.read(job)
        tasks = tasks_of(job, self.record.name)
        if not space.base:
            return Fused.weights(space.buffers)
        result = self.parameterize(job, space)
        network = _Network(self, job, trunk, tasks, result)
        for number in range(self.rounds):
            if job.finish and not network.begun(number):
                break
            network.round(number)
        result.variables["coefficients"].data.copy_(network.nodes.mean(0))
        details = {**result.details(), **loss_curve(network.losses, self.loss_name)}
        return Fused.weights(space.state(result.final()), details=details)

    def heard(self, node: int, count: int) -> list[int]:
        """The nodes that a node hears, itself first."""
        if self.topology == "ring":
            offsets = (0, 1, -1)
        else:
            offsets = range(1 + (self.neighbours or 1))
        return list(dict.fromkeys((node + offset) % count for offset in offsets))


class _Network:
    """The nodes, what they know, and the losses of their steps.

    Attributes:
        nodes: Coefficients of the task vectors in each node: `(nodes, tasks, groups)`.
    """

    def __init__(
        self,
        method: Gossip,
        job: FusionJob,
        trunk: nn.Module,
        tasks: Sequence[AdaptationTask],
        grid: Coefficients,
    ) -> None:
        self._method, self._job, self._trunk, self._tasks, self._grid = method, job, trunk, tasks, grid
        self._names = tuple(job.pool)
        count = len(self._names)
        self.nodes = torch.eye(count)[:, :, None].repeat(1, 1, len(grid.groups)).to(grid.each().detach())
        self.losses: dict[str, list[float]] = {name: [] for name in self._names}
        self._knowing = [{node} if method.own_data else set(range(count)) for node in range(count)]
        self._models: dict[tuple[int, tuple[int, ...]], TaskModels] = {}

    def round(self, number: int) -> None:
        """Let all nodes merge at once with those they hear."""
        count = len(self._names)
        heard = [self._method.heard(node, count) for node in range(count)]
        self._knowing = [set().union(*(self._knowing[other] for other in others)) for others in heard]
        merged = []
        for node, others in enumerate(heard):
            merging = _Merging(self._grid, self.nodes[others], self._method.init_coefficient)
            self._adapt(node, number, merging)
            merged.append(merging.total().detach())
        self.nodes = torch.stack(merged)

    def begun(self, number: int) -> bool:
        """Whether an interrupted run was in that round already."""
        return Training.begun(self._job, self._method, _stage(number, 0))

    def _adapt(self, node: int, number: int, merging: _Merging) -> None:
        method, models, place = (
            self._method,
            self._models_of(node),
            f"round {number + 1}, {self._names[node]}",
        )
        training = Training(
            self._job,
            method,
            merging.variables,
            models,
            learning_rate=method.learning_rate,
            stage=_stage(number, node),
        )
        with frozen(models.models):
            self.losses[self._names[node]] += training.run(
                lambda step: models.descend(merging.merged(step), _entropy), method.steps, f"{place}: entropy"
            )

    def _models_of(self, node: int) -> TaskModels:
        """Models of the tasks that the node knows; the same from round to round while it knows no more."""
        known = tuple(sorted(self._knowing[node]))
        if (node, known) not in self._models:
            self._models[node, known] = TaskModels(
                self._job,
                f"{self._method.record.name} {self._names[node]}",
                self._trunk,
                split=self._method.split,
                batch_size=self._method.batch_size,
                tasks=[self._tasks[task] for task in known],
            )
        return self._models[node, known]


def _stage(number: int, node: int) -> str:
    return f"round{number + 1}-node{node + 1}"


class _Merging(Parameterization):
    """One node in one round: a combination of combinations of the task vectors."""

    def __init__(self, grid: Coefficients, heard: Tensor, start: float) -> None:
        self._grid, self._heard = grid, heard
        weights = heard.new_full((len(heard), heard.shape[2]), start)
        self.variables = {"coefficients": weights.requires_grad_()}

    def total(self) -> Tensor:
        """Coefficients of the task vectors: `(tasks, groups)`."""
        return torch.einsum("ng,ntg->tg", self.variables["coefficients"], self._heard)

    def merged(self, step: int) -> dict[str, Tensor]:
        return self._grid.space.merged(self._grid.spread(self.total()))

    def details(self) -> dict[str, Any]:
        return {}


def _entropy(task: int, logits: Tensor, batch: Batch) -> Tensor:
    return mean_entropy(logits)
