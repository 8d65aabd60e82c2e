"""Pareto weight-ensembling mixtures of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from fb_mixing.ensembling.exact_pareto import exact_pareto_weights
from fb_mixing.ensembling.layers import set_preference
from fb_mixing.ensembling.learned_router import Loss, learn
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
    scalarisation, the formula above. With `scalarization="exact_pareto"` a linear program finds the weights,
    such that the losses come to be as $p_1 \mathcal L_1 = \dots = p_T \mathcal L_T$, and then as low as they
    can. Everything else is task arithmetic.

    Notes:
        The result computes for `preference`, by default all tasks alike;
        `fb_mixing.ensembling.layers.set_preference(model, p)` chooses another one, in the order of the pool.
        For the exact Pareto optimum the weights add up to T, as in FusionBench, and gradients are those of
        the routers alone; where its program has no solution they are T p.
        Mixtures in attention are had by naming its modules in `modules`. The router's hidden layer
        has 2 T entries, as FusionBench's, which takes 8000 steps at a learning rate of 1e-5 for CLIP.
        Memory: as `weight_ensembling_moe`.

    Reference:
        Tang et al., Towards Efficient Pareto Set Approximation via Mixture of Experts Based Model Fusion,
        2024, arXiv:2406.09770. Mahapatra and Rajan, Multi-Task Learning with User Preferences: Gradient
        Descent with Controlled Ascent in Pareto Optimization, ICML 2020, for the exact Pareto optimum.
    """

    router_layers: Literal[0, 1, 2] = Field(
        default=2, description="layers of a router; without any, the preference is not looked at"
    )
    scalarization: Literal["linear", "exact_pareto"] = Field(
        default="linear", description="how a preference weighs the tasks' losses"
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

        def gradients(variables: Mapping[str, Tensor], step: int) -> float:
            # Exponential numbers over their sum: uniform on the simplex.
            weights = torch.stack([drawn(step, model) for model in job.pool])
            weights = weights / weights.sum()
            set_preference(module, weights.tolist())
            if self.scalarization == "linear":
                return models.descend(variables, _weighted(models, weights))
            return _descend_exactly(variables, models, weights)

        losses = learn(job, self, module, models, gradients)
        chosen = self.preference or dict.fromkeys(job.pool, 1.0)
        total = sum(chosen.values())
        set_preference(module, [chosen[name] / total for name in job.pool])
        return losses

    def _tasks(self, models: int) -> int | None:
        return models


def _weighted(models: TaskModels, weights: Tensor) -> Loss:
    def loss(task: int, logits: Tensor, batch: Batch) -> Tensor:
        assert batch.labels is not None
        return weights[task].to(logits) * models.tasks[task].loss(logits, batch.labels)

    return loss


def _descend_exactly(variables: Mapping[str, Tensor], models: TaskModels, preference: Tensor) -> float:
    """Leave the gradient of the losses in the variables, weighed by EPO search; gives their mean."""
    losses, gradients = _each(variables, models)
    weights = len(losses) * exact_pareto_weights(losses, preference, gradients @ gradients.T)
    parts = (weights @ gradients).split([variable.numel() for variable in variables.values()])
    for variable, part in zip(variables.values(), parts):
        variable.grad = part.view_as(variable).to(variable)
    return float(preference @ losses) / len(losses)


def _each(variables: Mapping[str, Tensor], models: TaskModels) -> tuple[Tensor, Tensor]:
    """The tasks' losses `(tasks,)` on a batch each, and their gradients `(tasks, variables)`; in fp64."""
    like = next(iter(variables.values()))
    losses = like.new_zeros(len(models.tasks))
    gradients = like.new_zeros(len(losses), sum(variable.numel() for variable in variables.values()))
    for task, batch, weight in models.draw():
        assert batch.labels is not None
        leaves = {name: variable.detach().requires_grad_() for name, variable in variables.items()}
        with models.fabric.autocast():
            logits = models.logits(task, leaves, batch)
            loss = models.tasks[task].loss(logits, batch.labels) * weight
        models.fabric.backward(loss)
        losses[task] = loss.detach()
        found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves.values()]
        gradients[task] = torch.cat([each.flatten() for each in found])
    if models.fabric.world_size > 1:
        losses, gradients = (models.fabric.all_reduce(each, reduce_op="mean") for each in (losses, gradients))
    return losses.cpu().double(), gradients.cpu().double()
