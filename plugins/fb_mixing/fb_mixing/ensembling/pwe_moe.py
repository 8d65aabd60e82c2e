"""Pareto weight-ensembling mixtures of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from fb_mixing.ensembling.ensembling_method import Loss, descend
from fb_mixing.ensembling.layers import set_preference
from fb_mixing.ensembling.records import PWE_MOE
from fb_mixing.ensembling.weight_ensembling_moe import WeightEnsemblingMoE
from fusionbench_core import Batch, ConfigError, FusionJob, TaskModels, implements


@implements(PWE_MOE)
class ParetoWeightEnsemblingMoE(WeightEnsemblingMoE):
    r"""PWEMoE: routers that add up task vectors for any preference among the tasks, learned all at once.

    $$\theta_{\mathrm{mlp}}(p) = \theta_0 + \sum_{t=1}^{T} r_t(p)\,(\theta_t - \theta_0), \qquad
      \min_r \; \mathbb E_{p \sim \mathrm{Dir}(1)} \sum_{t=1}^{T} p_t\, \mathcal L_t\big(\theta(p)\big)$$

    The router looks at a preference p, weights of the tasks that add up to 1, and not at the input. Each step
    draws one from all preferences alike, and weighs the tasks' losses on labelled data by it: linear
    scalarisation. Everything else is task arithmetic.

    Notes:
        The result computes for `preference`, by default all tasks alike;
        `fb_mixing.ensembling.layers.set_preference(model, p)` chooses another one, in the order of the pool.
        The paper's other objective, exact Pareto optimality, needs a linear program a step and is not
        offered. Mixtures in attention are had by naming its modules in `modules`. The router's hidden layer
        has 2 T entries, as FusionBench's, which takes 8000 steps at a learning rate of 1e-5 for CLIP.
        Memory: as `weight_ensembling_moe`.

    Reference:
        Tang et al., Towards Efficient Pareto Set Approximation via Mixture of Experts Based Model Fusion,
        2024, arXiv:2406.09770.
    """

    router_layers: Literal[0, 1, 2] = Field(
        default=2, description="layers of a router; without any, the preference is not looked at"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="learning rate of Adam")
    preference: Mapping[str, NonNegativeFloat] | None = Field(
        default=None, description="model -> weight of its task in the result; all alike by default"
    )

    def check(self, models: Sequence[str]) -> None:
        """A weight for each model, not all of them zero.

        Raises:
            ConfigError: if the names are others, or all weights are zero.
        """
        if self.preference is None:
            return
        if set(self.preference) != set(models) or not any(self.preference.values()):
            raise ConfigError(
                f"the preference names {', '.join(self.preference) or 'no model'}",
                why=f"the pool has {', '.join(models)}, and not all weights can be zero",
                config="method.preference",
                fix="give a weight for every model",
            )

    def router_shapes(self, widths: Mapping[str, int], models: int) -> dict[str, dict[str, int]]:
        shape = {
            "in_features": models,
            "coefficients": models,
            "layers": self.router_layers,
            "hidden": 2 * models,
        }
        return {name: dict(shape) for name in widths}

    def train(self, job: FusionJob, module: nn.Module, models: TaskModels) -> list[float]:
        def drawn(step: int, model: str) -> Tensor:
            generator = job.generator("preference", step, model)
            return -torch.log1p(-torch.rand((), generator=generator, dtype=torch.float64))

        def loss_at(step: int) -> Loss:
            # Exponential numbers over their sum: uniform on the simplex.
            weights = torch.stack([drawn(step, model) for model in job.pool])
            weights = weights / weights.sum()
            set_preference(module, weights.tolist())

            def loss(task: int, logits: Tensor, batch: Batch) -> Tensor:
                assert batch.labels is not None
                return weights[task].to(logits) * models.tasks[task].loss(logits, batch.labels)

            return loss

        losses = descend(job, self, module, models, loss_at)
        chosen = self.preference or dict.fromkeys(job.pool, 1.0)
        total = sum(chosen.values())
        set_preference(module, [chosen[name] / total for name in job.pool])
        return losses

    def _tasks(self, models: int) -> int | None:
        return models
