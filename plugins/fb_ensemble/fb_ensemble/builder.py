"""Make an ensemble of its members, when fusing and when a saved one is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from fb_ensemble.conditioned import StackedTasks, TaskRouter
from fb_ensemble.members import gather
from fb_ensemble.predictors import ConfidentPredictor, MaxPredictor, MeanPredictor
from fusionbench_core import BuildContext, Members, Predictor


def build_predictor(context: BuildContext) -> Predictor:
    """The ensemble that `arguments` describe, of the pool's models; see :func:`make_predictor`."""
    return make_predictor(context.arguments, _members(context))


def build_stacked_tasks(context: BuildContext) -> StackedTasks:
    """The module that `arguments` describe, of the pool's models; see :func:`make_stacked_tasks`."""
    return make_stacked_tasks(context.arguments, _members(context))


def build_task_router(context: BuildContext) -> TaskRouter:
    """The module that `arguments` describe, of the pool's models; see :func:`make_task_router`."""
    return make_task_router(context.arguments, _members(context))


def make_predictor(arguments: Mapping[str, Any], members: Members) -> Predictor:
    """An ensemble in eval mode.

    Args:
        arguments: `combine`: `mean`, `max` or `surest`; for the mean, `weights` (one a member) and
            `space`; for the maximum, `space`; for the surest, `confidence`.
        members: The models.
    """
    combine = arguments["combine"]
    if combine == "mean":
        return MeanPredictor(members, arguments["weights"], arguments["space"]).eval()
    if combine == "max":
        return MaxPredictor(members, arguments.get("space", "logits")).eval()
    return ConfidentPredictor(members, arguments["confidence"]).eval()


def make_stacked_tasks(arguments: Mapping[str, Any], members: Members) -> StackedTasks:
    """Stacked ensembles in eval mode.

    Args:
        arguments: `classifiers`: task -> `weight` and `bias`, as nested lists.
        members: The models.
    """
    classifiers = {
        task: (torch.tensor(each["weight"]), torch.tensor(each["bias"]))
        for task, each in arguments["classifiers"].items()
    }
    return StackedTasks(members, classifiers).eval()


def make_task_router(arguments: Mapping[str, Any], members: Members) -> TaskRouter:
    """A router in eval mode.

    Args:
        arguments: `routes`: task -> name of its model.
        members: The models.
    """
    return TaskRouter(members, arguments["routes"]).eval()


def _members(context: BuildContext) -> Members:
    arguments = context.arguments
    return gather(
        arguments["members"], arguments.get("in_memory", "auto"), context.member, context.checkpoint
    )
