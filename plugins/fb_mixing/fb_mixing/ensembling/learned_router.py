"""What methods have in common whose routers learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fusionbench_core import Batch, FusionJob, ModelMethod, TaskModels, Training, mean_entropy


class LearnedRouterMethod(ModelMethod):
    """Learns the routers of a module, and nothing else in it."""

    router_layers: Literal[0, 1, 2] = Field(
        default=2, description="layers of a router; without any, coefficients are the same for all samples"
    )
    init_coefficient: float = Field(default=0.3, description="what all coefficients start from")
    learning_rate: float = Field(default=1e-4, gt=0, description="learning rate of Adam")
    steps: int = Field(default=100, ge=0, description="optimiser steps")
    batch_size: int = Field(default=16, gt=0, description="samples a task and step, over all devices")
    split: Literal["train", "validation", "test"] = Field(
        default="validation", description="split that is adapted on; test only if the run is transductive"
    )


Loss = Callable[[int, Tensor, Batch], Tensor]
"""Position of the task, logits and their batch -> a scalar."""


def learn(
    job: FusionJob,
    method: LearnedRouterMethod,
    module: nn.Module,
    models: TaskModels,
    gradients: Callable[[Mapping[str, Tensor], int], float],
) -> list[float]:
    """Train the routers of a module by Adam; gives the loss at each step.

    `gradients(variables, step)` leaves the gradients in the variables, and gives the loss.
    """
    routers = dict(router_parameters(module))
    variables = {}
    for name, parameter in routers.items():
        wide = torch.promote_types(parameter.dtype, torch.float32)
        variables[name] = parameter.detach().to(wide, copy=True).requires_grad_()
    training = Training(job, method, variables, models, learning_rate=method.learning_rate)
    losses = training.run(lambda step: gradients(variables, step), method.steps, "loss")
    with torch.no_grad():
        for name, parameter in routers.items():
            parameter.copy_(variables[name])
    return losses


def entropy(task: int, logits: Tensor, batch: Batch) -> Tensor:
    """Mean entropy of the predictions, a loss that needs no labels."""
    return mean_entropy(logits)


def router_parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What is learned: names and parameters of the routers, shared ones once."""
    return [(name, each) for name, each in module.named_parameters() if ".router." in f".{name}"]


def normal_rows(
    job: FusionJob, key: tuple[str, ...], rows: int, columns: int, inputs: Sequence[str] | None
) -> Tensor:
    """`(rows, columns)` numbers of standard deviation 0.01, keyed; column by column if these have names."""
    if inputs is not None:
        return torch.cat([normal_rows(job, (*key, each), rows, 1, None) for each in inputs], dim=1)
    generator = job.generator("router", *key)
    return 0.01 * torch.randn(rows, columns, generator=generator, dtype=torch.float32)
