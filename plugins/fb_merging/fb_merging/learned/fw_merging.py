"""FW-Merging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fb_merging.learned.coefficients import Coefficients
from fb_merging.learned.learned_method import held, loss_curve
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.records import FW_MERGING
from fusionbench_core import (
    Batch,
    Fused,
    FusionJob,
    ModelMethod,
    ModelPool,
    TaskModels,
    Training,
    frozen,
    implements,
    matrix,
    mean_entropy,
)


@implements(FW_MERGING)
class FwMerging(ModelMethod):
    r"""Frank-Wolfe optimisation between the models: move towards the one that the loss's gradient points to.

    From task arithmetic with $\lambda$, each of K iterations takes the gradient g of the tasks' mean loss on
    labelled data, and steps towards the model that lowers its linearisation most:

    $$s = \arg\min_t \langle g, \theta_t \rangle, \qquad
      \theta \leftarrow \theta + \gamma_k (s - \theta), \qquad \gamma_k = \lambda\,\eta\,\frac{2}{k + 2}$$

    with k counted from 0. `granularity="tensor"` chooses a model for each parameter tensor.

    `variant="soft"` takes the gradient of each task by itself, lets each choose one model that no other task
    has, and merges all chosen ones at once, with coefficients $\mu_t^l$ of $\theta_t^l - \theta^l$ that are
    learned on unlabelled data like AdaMerging's: from $\lambda$ in the first iteration, where $\theta$ is the
    base, and from about 0 later.

    Notes:
        The authors' code compares cosines, summed over tensors: `alignment="cosine"`, the default. The
        paper's linear minimisation is `alignment="inner_product"`.
        In the soft variant tasks choose in the order of the models.

    Reference:
        Chen et al., FW-Merging: Scaling Model Merging with Frank-Wolfe Optimization, ICCV 2025,
        arXiv:2503.12649.
    """

    variant: Literal["hard", "soft"] = Field(
        default="hard", description="towards one model at a time, or one for each task with learned weights"
    )
    granularity: Literal["task", "tensor"] = Field(
        default="task", description="one choice for the whole model, or one for each parameter tensor"
    )
    alignment: Literal["cosine", "inner_product"] = Field(
        default="cosine", description="how models are compared with the gradient"
    )
    iterations: int = Field(default=10, ge=0, description="K: how often a direction is chosen")
    scaling_factor: float = Field(default=0.3, description="λ: of task arithmetic at the beginning")
    step_size: float = Field(default=0.1, gt=0, description="η: scales the steps of the hard variant")
    samples: int = Field(default=100, gt=0, description="labelled samples a task for each gradient")
    batch_size: int = Field(default=16, gt=0, description="samples a batch")
    split: Literal["train", "validation"] = Field(default="train", description="split of labelled samples")
    steps: int = Field(default=100, gt=0, description="steps of Adam an iteration (soft)")
    learning_rate: float = Field(default=1e-3, gt=0, description="learning rate of Adam (soft)")
    adaptation_split: Literal["train", "validation", "test"] = Field(
        default="validation", description="split of unlabelled samples (soft); test only if transductive"
    )

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """A few steps show all there is to check."""
        return {"variant": "soft", "iterations": 2, "samples": 8, "steps": 3, "learning_rate": 0.01}

    def memory(self, pool: ModelPool) -> int:
        """The models, and a gradient of each; in the soft variant also their task vectors."""
        return held(pool, (2, 4.5) if self.variant == "hard" else (3, 4.5))

    def fuse(self, job: FusionJob) -> Fused:
        trunk = job.pool.module().to(job.fabric.device)
        space = ParameterSpace.of(job.pool, trunk, job.fabric.device)
        if not space.base:
            return Fused.weights(space.buffers)
        trunk.load_state_dict(space.buffers, strict=False)
        run = _FrankWolfe(self, job, trunk, space)
        with frozen(run.models):
            run.hard() if self.variant == "hard" else run.soft()
        return Fused.weights(space.state(run.merged), details=run.details())


class _FrankWolfe:
    """The state of the optimisation."""

    def __init__(self, method: FwMerging, job: FusionJob, trunk: nn.Module, space: ParameterSpace) -> None:
        self._method, self._job = method, job
        self._labelled = TaskModels(
            job, "fw_merging", trunk, split=method.split, batch_size=method.batch_size, labelled=True
        )
        self._unlabelled = TaskModels(
            job, "fw_merging", trunk, split=method.adaptation_split, batch_size=method.batch_size
        )
        start = method.scaling_factor if method.variant == "hard" else 0.0
        coefficients = torch.full((len(job.pool), 1), start)
        merged = space.merged(coefficients.to(job.fabric.device))
        self.merged = {name: value.detach() for name, value in merged.items()}
        # In the place of the task vectors, which nobody asks for any more.
        self._experts = {name: vectors.add_(space.base[name]) for name, vectors in space.vectors.items()}
        self.losses: list[float] = []
        self._counts = torch.zeros(method.iterations, len(job.pool))
        self._moved = 0
        self._learned: dict[str, list[float]] = {}

    @property
    def models(self) -> list[nn.Module]:
        """Everything that is called."""
        return [*self._labelled.models, *self._unlabelled.models]

    def hard(self) -> None:
        """Move, time and again, towards the model that the gradient of all tasks points to."""
        method = self._method
        # An interrupted run is gone on with by its choices: they lead to where it was, and take no space.
        choices = torch.zeros(method.iterations, len(self.merged), dtype=torch.int64)
        training = Training(self._job, method, {}, self._labelled, kept={"choices": choices})

        def choose(iteration: int) -> float:
            self._move(choices[:iteration])
            gradients, loss = self._gradients()
            mean = {name: torch.stack([each[name] for each in gradients]).mean(0) for name in self.merged}
            choices[iteration] = torch.tensor(self._choices(mean, taken={}))
            return loss

        self.losses = training.run(choose, method.iterations, "loss")
        self._move(choices[: len(self.losses)])

    def _move(self, choices: Tensor) -> None:
        """Take the steps that were not taken yet; `choices` is `(iterations, parameters)`."""
        method = self._method
        for iteration in range(self._moved, len(choices)):
            step = method.scaling_factor * method.step_size * 2 / (iteration + 2)
            for name, model in zip(self.merged, choices[iteration].tolist()):
                self.merged[name] = self.merged[name].lerp(self._experts[name][model], step)
                self._counts[iteration, model] += 1 / len(self.merged)
        self._moved = len(choices)

    def soft(self) -> None:
        """Let every task choose a model, and learn how to merge the chosen ones, time and again."""
        job, total = self._job, self._method.iterations
        for iteration in range(total):
            if job.finish and not Training.begun(job, self._method, _stage(iteration)):
                break
            self._soft(iteration)
            job.progress(iteration + 1, total, f"loss {self.losses[-1]:.4f}")

    def _soft(self, iteration: int) -> None:
        taken: dict[str, list[int]] = {name: [] for name in self.merged}
        gradients, loss = self._gradients()
        self.losses.append(loss)
        for gradient in gradients:
            for name, model in zip(self.merged, self._choices(gradient, taken)):
                taken[name].append(model)
                self._counts[iteration, model] += 1 / len(self.merged)
        vectors = {name: self._experts[name][models] - self.merged[name] for name, models in taken.items()}
        here = ParameterSpace(base=self.merged, vectors=vectors)
        start = self._method.scaling_factor if iteration == 0 else 1e-8
        coefficients = Coefficients(here, tuple(self._job.pool), "tensor", start)
        training = Training(
            self._job,
            self._method,
            coefficients.variables,
            self._unlabelled,
            learning_rate=self._method.learning_rate,
            stage=_stage(iteration),
        )
        self._learned[f"iteration {iteration + 1}"] = training.run(
            lambda step: self._unlabelled.descend(coefficients.merged(step), _entropy),
            self._method.steps,
            "entropy",
        )
        self.merged = {name: value.detach() for name, value in coefficients.merged(0).items()}

    def details(self) -> dict[str, Any]:
        """Which models were chosen, and the losses."""
        found: dict[str, Any] = {}
        if self.losses:
            rows = [f"iteration {number + 1}" for number in range(len(self.losses))]
            title = "Share of the parameters that moved towards each model"
            counts = self._counts[: len(rows)]
            found["chosen"] = matrix(counts, rows=rows, columns=list(self._job.pool), title=title)
            found |= loss_curve({"loss": self.losses}, "loss")
        if self._learned:
            found["adaptation"] = loss_curve(self._learned, "entropy")["losses"]
        return found

    def _gradients(self) -> tuple[list[dict[str, Tensor]], float]:
        """The gradient of each task's loss by the merged parameters, and the mean loss."""
        models, method = self._labelled, self._method
        rounds = -(-method.samples // method.batch_size)
        found, total = [], torch.zeros((), dtype=torch.float64)
        leaves = [
            {name: value.detach().requires_grad_() for name, value in self.merged.items()}
            for _ in models.tasks
        ]
        for _ in range(rounds):
            for task, batch, weight in models.draw():
                value = _loss(models, task, models.logits(task, leaves[task], batch), batch) * weight / rounds
                models.fabric.backward(value)
                total += value.detach().double().cpu()
        for each in leaves:
            models.average_gradients(each)
            found.append({name: _grad(leaf) for name, leaf in each.items()})
        if models.fabric.world_size > 1:
            total = models.fabric.all_reduce(total, reduce_op="mean")
        assert isinstance(total, Tensor)
        return found, float(total) / len(models.tasks)

    def _choices(self, gradient: Mapping[str, Tensor], taken: Mapping[str, list[int]]) -> list[int]:
        """For each parameter the model to move towards; all the same unless chosen by tensor."""
        scores = torch.stack([self._scores(name, gradient[name]) for name in self.merged])
        if self._method.granularity == "task":
            scores = scores.sum(0, keepdim=True).expand_as(scores)
        scores = scores.clone()
        for row, name in enumerate(self.merged):
            scores[row, taken.get(name, [])] = torch.inf
        return scores.argmin(1).tolist()

    def _scores(self, name: str, gradient: Tensor) -> Tensor:
        """How much moving towards each model raises the loss, `(models,)`."""
        experts = self._experts[name].reshape(len(self._job.pool), -1).double()
        flat = gradient.flatten().double()
        products = experts @ flat
        if self._method.alignment == "inner_product":
            return products
        sizes = flat.norm() * experts.norm(dim=1)
        return torch.where(sizes > 0, products / sizes.clamp(min=torch.finfo(sizes.dtype).tiny), 0)


def _stage(iteration: int) -> str:
    return f"iteration{iteration + 1}"


def _grad(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _loss(models: TaskModels, task: int, logits: Tensor, batch: Batch) -> Tensor:
    assert batch.labels is not None
    return models.tasks[task].loss(logits, batch.labels)


def _entropy(task: int, logits: Tensor, batch: Batch) -> Tensor:
    return mean_entropy(logits)
