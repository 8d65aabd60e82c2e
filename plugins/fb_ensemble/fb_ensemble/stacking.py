"""A classifier of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field

from fb_ensemble.builder import make_stacked_tasks
from fb_ensemble.ensemble import MemberMethod, order_of, referring
from fb_ensemble.fitting import fit_classifier
from fb_ensemble.members import members_of
from fb_ensemble.predictors import stacked_probabilities
from fb_ensemble.records import STACKING
from fb_ensemble.validation import Predictions, Samples, predictions, used
from fusionbench_core import Fused, FusionJob, MissingCapability, implements

LARGEST = 10_000_000
"""Weights of the classifier of one task: more is no classifier of classes, but of a vocabulary."""


@implements(STACKING)
class Stacking(MemberMethod):
    r"""Learn from validation data how to read all models' predictions, a linear classifier for each task.

    With the class probabilities $p_t = \mathrm{softmax}(f_t(x))$ of T models, and for each task:

    $$y = W\,[p_1, \dots, p_T] + b, \qquad
      \min_{W, b} \sum_i -\log \mathrm{softmax}(y(x_i))_{c_i} + \frac{\lambda}{2} \lVert W \rVert_F^2$$

    over its labelled validation data: multinomial logistic regression.

    Notes:
        Classes differ from task to task, so there is a classifier for each, and the result must be told
        the task: `fused.for_task(name)`. Task pools do, and the report says so.
        The models must not have been trained on the validation data; Wolpert cross-validates instead.
        Ting and Witten find that probabilities make better attributes than predicted classes, and a linear
        classifier of them a good choice; theirs is least squares for each class.
        The artefact holds T · classes² numbers a task, and refers to the models.

    Reference:
        Wolpert, Stacked generalization, Neural Networks 5(2), 1992.
        Ting and Witten, Issues in Stacked Generalization, JAIR 10, 1999, arXiv:1105.5466.
    """

    l2: float = Field(default=1.0, gt=0, description="λ: how much large weights cost, against summed loss")
    validation_samples: Samples = None

    @classmethod
    def example(cls, models: Sequence[str]) -> Mapping[str, Any]:
        """Small weights are found in a few steps."""
        return {"l2": 10.0}

    def fuse(self, job: FusionJob) -> Fused:
        members = members_of(job.pool, order_of(self, job.pool), self.in_memory)
        found = predictions(job, members, self.validation_samples, _check_size)
        return referring(
            members,
            make_stacked_tasks,
            "stacked_tasks",
            details={"validation_samples": used(found)},
            in_memory=self.in_memory,
            classifiers={task: self._classifier(each) for task, each in found.items()},
        )

    def _classifier(self, seen: Predictions) -> dict[str, list]:
        features, classes = stacked_probabilities(seen.logits), seen.logits.shape[-1]
        weight, bias = fit_classifier(features, seen.labels.to(torch.long), classes, self.l2)
        return {"weight": weight.tolist(), "bias": bias.tolist()}


def _check_size(task: str, seen: Predictions) -> None:
    models, _, classes = seen.logits.shape
    if models * classes**2 > LARGEST:
        raise MissingCapability(
            f"stacking would learn {models * classes**2:,} numbers for task {task!r}",
            why=f"T · classes², for {models} models and {classes:,} classes; at most {LARGEST:,}",
            fix="choose weighted_ensemble with weights=fitted, which learns one weight a model",
        )
