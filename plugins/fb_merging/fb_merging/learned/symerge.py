"""SyMerge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fb_merging.conditioned.tasks_of_pool import one_task_each
from fb_merging.learned.coefficients import Coefficients, Granularity, Start
from fb_merging.learned.learned_method import LearnedMethod, loss_curve
from fb_merging.learned.parameterization import Parameterization
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.records import SYMERGE
from fb_merging.learned.task_layers import TaskLayers
from fb_merging.operations.matrices import named
from fusionbench_core import (
    Batch,
    ConfigError,
    Fused,
    FusionJob,
    ModelPool,
    TaskModels,
    Training,
    frozen,
    implements,
)


@implements(SYMERGE)
class SyMerge(LearnedMethod):
    r"""Learn coefficients together with one layer of its own for each task, labelled by the task's own model.

    $$\theta^l = \theta_0^l + \sum_t \lambda_t^l\, \tau_t^l, \qquad
      \min_{\lambda, \phi} \sum_t \mathbb E_{x \sim D_t}\, c_t(x)\,
      \mathrm{CE}\big(f_t(x; \theta, \phi_t),\ \hat y_t(x)\big), \qquad \hat y_t = \arg\max f_t(x; \theta_t)$$

    where $\phi_t$ is the layer that task t has its own, at first its own model's. With `confident`, $c_t(x)$
    is 0 for the samples that both models label differently and the merged one is surer of; else it is 1.

    Notes:
        The result must be told the task: `fused.for_task(name)`. Task pools do, and the report says so.
        `layer` are glob patterns of the parameters of $\phi_t$; by default those of the last module of the
        trunk that has a matrix, such as the projection behind the last block. The authors adapt the
        classifier of each task, or one block; heads belong to tasks here and stay.
        Coefficients are clamped to [0, 1], and one is learned a task and tensor, as in the authors' code.
        The authors' code is configured to be `confident`. Where models of single tasks are unsure of
        themselves that leaves out what the merged one gets wrong, so it is off here.
        A step takes a batch of every task, where that code takes one of Adam for each; samples left out
        count as 0 in the mean. 100 steps are a moderate default; the authors take 500.
        Running statistics are the mean of the models', also where labels are computed. Data as for
        `adamerging`.

    Reference:
        Jung et al., SyMerge: From Non-Interference to Synergistic Merging via Single-Layer Adaptation,
        ICML 2026, arXiv:2412.19098.
    """

    copies = (1.5, 4)  # also the tasks' own layers, their gradients and moments

    learning_rate: float = Field(default=1e-2, gt=0, description="learning rate of Adam")
    batch_size: int = Field(default=32, gt=0, description="samples a task and step, over all devices")
    layer: tuple[str, ...] = Field(
        default=(), description="glob patterns of the parameters that each task has its own; none: the last"
    )
    confident: bool = Field(
        default=False, description="leave out samples that the merged model labels otherwise and is surer of"
    )
    granularity: Granularity = "tensor"
    init_coefficient: Start = Field(
        default=0.3, description="what all coefficients start from, or `details.coefficients` of a report"
    )

    @property
    def loss_name(self) -> str:
        return "cross entropy"

    def parameterize(self, job: FusionJob, space: ParameterSpace) -> Parameterization:
        return Coefficients(
            space, tuple(job.pool), self.granularity, self.init_coefficient, bounds=(0.0, 1.0)
        )

    def fuse(self, job: FusionJob) -> Fused:
        tasks = one_task_each(job.pool, job.pool.names)
        trunk, space = self.read(job)
        layer = layer_of_tasks(trunk, job.pool, self.layer)
        layers = _initial_layers(trunk, space, layer, len(tasks))
        shared = space.without(layer)
        models = self.task_models(job, trunk)
        merged = self.parameterize(job, shared)
        with frozen(models.models):
            losses = self._learn(job, models, space, merged, layers)
        state = trunk.state_dict()
        for name, value in merged.final().items():
            state[name].copy_(value.detach())
        model = TaskLayers(tasks, trunk.cpu(), layer)
        for place, name in enumerate(layer):
            model.task_layers[place].data.copy_(torch.stack([each[name].detach() for each in layers]))
        return Fused.of_module(
            model.eval(),
            builder="merging/task_layers",
            arguments={"tasks": list(model.tasks), "tensors": list(model.tensors)},
            details={**merged.details(), **loss_curve({self.loss_name: losses}, self.loss_name)},
        )

    def _learn(
        self,
        job: FusionJob,
        models: TaskModels,
        space: ParameterSpace,
        merged: Parameterization,
        layers: Sequence[Mapping[str, Tensor]],
    ) -> list[float]:
        def loss(task: int, parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
            with torch.no_grad():
                own = {name: base + space.vectors[name][task] for name, base in space.base.items()}
                wanted = models.logits(task, own, batch)
            given = models.logits(task, {**parameters, **layers[task]}, batch)
            return labelled_by(wanted, given, confident=self.confident)

        variables = dict(merged.variables)
        for name, each in zip(job.pool, layers):
            variables |= {f"layer/{name}/{tensor}": value for tensor, value in each.items()}
        training = Training(job, self, variables, models, learning_rate=self.learning_rate)
        return training.run(
            lambda step: models.descend_on(merged.merged(step), loss), self.steps, self.loss_name
        )


def labelled_by(wanted: Tensor, given: Tensor, *, confident: bool) -> Tensor:
    """Mean cross-entropy in nats of logits `(n, classes)` with the labels that other logits choose.

    With `confident`, samples count as 0 that both label differently, with less certainty by `wanted`.
    """
    labels = wanted.argmax(1)
    losses = functional.cross_entropy(given.float(), labels, reduction="none")
    if not confident:
        return losses.mean()
    surer = wanted.float().softmax(1).amax(1) >= given.detach().float().softmax(1).amax(1)
    kept = (given.argmax(1) == labels) | surer
    return torch.where(kept, losses, 0).mean()


def layer_of_tasks(trunk: nn.Module, pool: ModelPool, patterns: Sequence[str]) -> list[str]:
    """Names of the parameters in scope that the patterns name; without patterns, those of the last module
    of the trunk that has a matrix, or else of the last one.

    Raises:
        ConfigError: if there are none.
    """
    stored = set(pool.checkpoint().keys())
    names = [
        name
        for name, each in trunk.named_parameters()
        if each.is_floating_point() and name in stored and pool.merges(name)
    ]
    if patterns:
        found = [name for name in names if named(name, patterns)]
    else:
        matrices = [name for name in names if trunk.get_parameter(name).dim() > 1]
        last = next(reversed(matrices or names), "").rpartition(".")[0]
        found = [name for name in names if name.rpartition(".")[0] == last]
    if not found:
        raise ConfigError(
            "there is no layer that tasks could have their own",
            config="method.layer",
            why=f"no parameter in scope fits {', '.join(patterns) or 'the default'}; there are "
            + (", ".join(names[:3]) + ", …" if names else "none"),
            fix="name parameters as the model does, e.g. method.layer=['visual_projection.*']",
        )
    return found


def _initial_layers(
    trunk: nn.Module, space: ParameterSpace, layer: Sequence[str], tasks: int
) -> list[dict[str, Tensor]]:
    """For each task the parameters of the layer as its own model has them, ready to be learned."""
    layers = []
    for task in range(tasks):
        values = {}
        for name in layer:
            parameter = trunk.get_parameter(name).detach()
            wide = parameter.to(torch.promote_types(parameter.dtype, torch.float32))
            own = space.base[name] + space.vectors[name][task] if name in space.base else wide
            values[name] = own.clone().requires_grad_()
        layers.append(values)
    return layers
