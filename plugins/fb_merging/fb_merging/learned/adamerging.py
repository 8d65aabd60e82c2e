"""AdaMerging."""

from __future__ import annotations

import dataclasses
from typing import Literal

from pydantic import Field
from torch import Tensor

from fb_merging.learned.coefficients import Coefficients, Granularity, Start
from fb_merging.learned.learned_method import LearnedMethod
from fb_merging.learned.parameterization import Parameterization, PartlyFixed
from fb_merging.learned.parameters import ParameterSpace
from fb_merging.learned.records import ADAMERGING
from fb_merging.learned.trimming import ties_trimmed
from fb_merging.operations.matrices import named
from fusionbench_core import Batch, Capabilities, FusionJob, TaskModels, implements, mean_entropy


@implements(ADAMERGING)
class AdaMerging(LearnedMethod):
    r"""Learn how much of each task vector to add, by making predictions on unlabelled data certain.

    $$\theta^l = \theta_0^l + \sum_{t=1}^{T} \lambda_t^l\, \tau_t^l, \qquad
      \min_\lambda \sum_{t=1}^{T} \mathbb E_{x \sim D_t}\, H\big(\mathrm{softmax} f_t(x; \theta)\big)$$

    where $\tau_t = \theta_t - \theta_0$, $f_t$ is the merged trunk with the fixed head of task t, and H is
    Shannon's entropy in nats. Adam takes one batch of every task a step.

    Notes:
        `granularity="tensor"` learns one coefficient a task and parameter tensor: what the authors' code and
        FusionBench call layer-wise. `"layer"` shares it within each numbered layer, `"task"` everywhere.
        `trim="ties"` is AdaMerging++: task vectors are trimmed to the fraction `density` of their largest
        entries, in the whole model, and keep those whose sign is that of the trimmed ones' sum.
        `objective="cross_entropy"` is supervised: the task's own loss on labelled batches. FusionBench's
        variant for language models is that with `normalize`, and `average` naming attention and early layers.
        100 steps are a moderate default for small models; the paper takes 500 and FusionBench 1000.
        Data come from the validation split. The paper and FusionBench adapt on the test inputs that are
        scored afterwards, which needs `split="test"` and a transductive run here.
        Coefficients are not clamped, and are in the report: `init_coefficient` takes its
        `details.coefficients` to go on from them, with `steps=0` to use them as they are.
        Memory: T + 1 times the parameters in which some model differs from the base, and their gradients;
        only these have coefficients. Floating-point buffers are the mean of the models'; integer buffers and
        tensors out of scope are the base's. Tied parameters stay tied.

    Reference:
        Yang et al., AdaMerging: Adaptive Model Merging for Multi-Task Learning, ICLR 2024, arXiv:2310.02575.
    """

    granularity: Granularity = "tensor"
    init_coefficient: Start = Field(
        default=0.3, description="what all coefficients start from, or `details.coefficients` of a report"
    )
    trim: Literal["none", "ties"] = Field(
        default="none", description="task vectors as they are, or trimmed and with elected signs (++)"
    )
    density: float = Field(
        default=0.2, gt=0, le=1, description="fraction of entries that trimming keeps in each task vector"
    )
    objective: Literal["entropy", "cross_entropy"] = Field(
        default="entropy", description="entropy of the predictions, or the task's loss on labelled data"
    )

    normalize: bool = Field(
        default=False,
        description="learn the logits of shares: the coefficients of a tensor are positive and add up to 1",
    )
    average: tuple[str, ...] = Field(
        default=(), description="glob patterns of parameters that get the models' mean, and no coefficients"
    )

    @property
    def capabilities(self) -> Capabilities:
        """The record's; the supervised objective needs labels and the task's loss."""
        if self.objective == "entropy":
            return self.record.capabilities
        return dataclasses.replace(
            self.record.capabilities, tasks=(*self.record.capabilities.tasks, "labels", "loss")
        )

    @property
    def loss_name(self) -> str:
        return self.objective.replace("_", " ")

    def parameterize(self, job: FusionJob, space: ParameterSpace) -> Parameterization:
        averaged = [name for name in space.base if named(name, self.average)]
        learned = space.without(averaged)
        if self.trim == "ties":
            learned = dataclasses.replace(learned, vectors=ties_trimmed(learned.vectors, self.density))
        coefficients = Coefficients(
            learned, tuple(job.pool), self.granularity, self.init_coefficient, normalize=self.normalize
        )
        return PartlyFixed(
            coefficients, {name: space.base[name] + space.vectors[name].mean(0) for name in averaged}
        )

    def loss(self, models: TaskModels, task: int, logits: Tensor, batch: Batch) -> Tensor:
        if self.objective == "entropy":
            return mean_entropy(logits)
        assert batch.labels is not None
        return models.tasks[task].loss(logits, batch.labels)
