"""Make an ensemble of live members, when fusing and when a saved one is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fb_ensemble.predictors import MaxPredictor, MeanPredictor
from fusionbench_core import BuildContext, Predictor


def build_predictor(context: BuildContext) -> Predictor:
    """The ensemble that `arguments` describe, of the pool's models; see :func:`make_predictor`."""
    return make_predictor(context.arguments, context.member)


def make_predictor(arguments: Mapping[str, Any], member: Callable[[str], nn.Module]) -> Predictor:
    """An ensemble in eval mode, without gradients.

    Args:
        arguments: `members`, the names in order; `combine`, `mean` or `max`; for the mean, `weights`
            (one a member) and `space` (`logits` or `probabilities`).
        member: Makes a live module of that name.
    """
    members = {name: member(name).requires_grad_(False) for name in arguments["members"]}
    if arguments["combine"] == "max":
        return MaxPredictor(members).eval()
    return MeanPredictor(members, arguments["weights"], arguments["space"]).eval()
