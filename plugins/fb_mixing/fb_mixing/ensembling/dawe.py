"""Data-adaptive weight ensembling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fb_mixing.ensembling.data_adaptive import DataAdaptiveModel, pooled
from fb_mixing.ensembling.learned_router import (
    LearnedRouterMethod,
    entropy,
    learn,
    normal_rows,
    router_parameters,
)
from fb_mixing.ensembling.records import DAWE
from fb_mixing.modules import count
from fb_mixing.pooled import task_tensor
from fusionbench_core import (
    Fused,
    FusionJob,
    ModelPool,
    TaskModels,
    UnsupportedArchitecture,
    curve,
    frozen,
    implements,
    tasks_of,
)


@implements(DAWE)
class DataAdaptiveWeightEnsembling(LearnedRouterMethod):
    r"""DAWE: a router adds up the task vectors of the whole model anew for every sample.

    $$\theta^l(x) = \theta_0^l + \sum_{t=1}^{T} r^l_t(\phi(x))\,(\theta^l_t - \theta^l_0), \qquad
      r(\phi) = W \phi + b$$

    with one coefficient a model (`granularity="task"`), or one a model and tensor l; $\phi(x)$ are features
    of the sample. `router_layers` = 2 puts a hidden layer between, and 0 leaves b alone. The router starts at
    `init_coefficient` and learns to make the predictions on unlabelled data certain: it minimises the sum
    over the tasks of the mean entropy.

    Notes:
        As implemented in FusionBench (dawe), for which there is no paper; its documentation names another
        one. There the features are those of a ResNet-18, for CLIP only; here they are what the base gives,
        averaged over its tokens, for any model. It takes 1000 steps on one test input of each task, and
        learns on the average coefficients of a batch. Buffers are the base's.
        A sample costs a pass of the base, one of its own model, and putting that together.
        Memory: the base and T task vectors, and one model a sample of a batch while it learns.
    """

    router_layers: Literal[0, 1, 2] = Field(
        default=1, description="layers of a router; without any, coefficients are the same for all samples"
    )
    granularity: Literal["task", "tensor"] = Field(
        default="task", description="one coefficient for each model, or for each tensor of each model"
    )
    learning_rate: float = Field(default=1e-5, gt=0, description="learning rate of Adam")
    batch_size: int = Field(default=1, gt=0, description="samples a task and step, over all devices")

    @classmethod
    def example(cls, models: Sequence[str]) -> dict[str, Any]:
        """A few steps."""
        return {"steps": 2, "learning_rate": 0.01, "batch_size": 4}

    def memory(self, pool: ModelPool) -> int:
        """The base, the task vectors, and the weights of a sample; while it learns, those of a batch."""
        samples = 2 * self.batch_size if self.steps else 1
        return pool.live_bytes() * (1 + len(pool) + samples)

    def fuse(self, job: FusionJob) -> Fused:
        module, arguments = self._upscaled(job)
        models = TaskModels(job, self.record.name, module, split=self.split, batch_size=self.batch_size)
        with frozen(models.models):
            losses = learn(job, self, module, models, lambda variables, _: models.descend(variables, entropy))
        details: dict[str, Any] = {
            "parameters": count(module),
            "trained_parameters": sum(each.numel() for _, each in router_parameters(module)),
        }
        if losses:
            details["losses"] = curve({"loss": losses}, title="Adaptation", y_label="mean loss (nats)")
        return Fused.of_module(
            module.cpu().requires_grad_(False).eval(),
            builder="mixing/data_adaptive",
            arguments=arguments,
            details=details,
        )

    @torch.no_grad()
    def _upscaled(self, job: FusionJob) -> tuple[DataAdaptiveModel, dict[str, Any]]:
        base = job.pool.module()
        names = [
            name
            for name, parameter in base.named_parameters()
            if parameter.is_floating_point()
            and job.pool.merges(name)
            and all(name in job.pool.checkpoint(model) for model in job.pool)
        ]
        if not names:
            raise UnsupportedArchitecture(
                f"{type(base).__name__} has no parameters in scope", fix="widen modelpool.scope"
            )
        width = self._width(job, base)
        coefficients = len(job.pool) * (len(names) if self.granularity == "tensor" else 1)
        router = {
            "in_features": width,
            "coefficients": coefficients,
            "layers": self.router_layers,
            "hidden": width,
        }
        arguments = {
            "names": names,
            "models": len(job.pool),
            "router": router,
            "by_tensor": self.granularity == "tensor",
        }
        module = DataAdaptiveModel(base, **arguments).requires_grad_(False).eval()
        for name, delta in zip(names, module.deltas):
            for number, model in enumerate(job.pool):
                delta[number] = task_tensor(job.pool, model, name, base.get_parameter(name))
        self._initialise(job, module)
        return module.to(job.fabric.device), arguments

    def _width(self, job: FusionJob, base: nn.Module) -> int:
        """How many features the base gives, found out on one sample."""
        task = tasks_of(job, self.record.name)[0]
        found: list[Tensor] = []
        hook = base.register_forward_hook(lambda module, given, output: found.append(pooled(output)))
        attached = task.attach(base).eval()
        for batch in task.batches(self.split, limit=1, batch_size=1):
            attached(**batch.inputs)
        hook.remove()
        return found[0].shape[1]

    def _initialise(self, job: FusionJob, module: DataAdaptiveModel) -> None:
        """Small normal weights, so that all samples begin with about the same coefficients."""
        router = module.router
        router.bias.fill_(self.init_coefficient)
        if router.hidden_weight is not None:
            rows, columns = router.hidden_weight.shape
            router.hidden_weight.copy_(normal_rows(job, ("hidden",), rows, columns, None))
        if router.weight is not None:
            rows, columns = router.weight.shape[0] // module.models, router.weight.shape[1]
            parts = [normal_rows(job, (model,), rows, columns, None) for model in job.pool]
            # FusionBench's standard deviations: 0.001 of a single layer, 0.01 of two.
            router.weight.copy_(torch.cat(parts) * (0.1 if router.hidden_weight is None else 1))
