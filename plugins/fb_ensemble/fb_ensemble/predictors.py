"""How an ensemble combines the outputs of its members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fb_ensemble.space import MEANS, Space
from fusionbench_core import Members, Predictor

Confidence = Literal["max_probability", "entropy"]


class MeanPredictor(Predictor):
    """A weighted mean of outputs, in one of the spaces of :mod:`fb_ensemble.space`.

    Args:
        members: The models.
        weights: One a member, in that order.
        space: What is averaged.
    """

    def __init__(
        self, members: Mapping[str, nn.Module] | Members, weights: Sequence[float], space: Space = "logits"
    ) -> None:
        super().__init__(members)
        self.weights = tuple(weights)
        self.space = space

    def combine(self, outputs: Tensor) -> Tensor:
        """`(members, …, classes)` to `(…, classes)`; half precision is summed in fp32."""
        wide = widened(outputs)
        weights = torch.tensor(self.weights, dtype=wide.dtype, device=wide.device)
        return MEANS[self.space](wide, weights.view(-1, *[1] * (wide.ndim - 1))).type_as(outputs)

    def extra_repr(self) -> str:
        return f"names={self.names}, weights={self.weights}, space={self.space!r}"


class MaxPredictor(Predictor):
    """The largest output, entry by entry: of logits, or of log-probabilities.

    Args:
        members: The models.
        space: What is compared.
    """

    def __init__(
        self,
        members: Mapping[str, nn.Module] | Members,
        space: Literal["logits", "probabilities"] = "logits",
    ) -> None:
        super().__init__(members)
        self.space = space

    def combine(self, outputs: Tensor) -> Tensor:
        """`(members, …, classes)` to `(…, classes)`."""
        if self.space == "probabilities":
            outputs = widened(outputs).log_softmax(-1).type_as(outputs)
        return outputs.amax(0)

    def extra_repr(self) -> str:
        return f"names={self.names}, space={self.space!r}"


class ConfidentPredictor(Predictor):
    """For each input the logits of the member that is surest of its prediction; of equals the first.

    Args:
        members: The models.
        confidence: How sure a member is: its largest probability, or the negative entropy.
    """

    def __init__(
        self, members: Mapping[str, nn.Module] | Members, confidence: Confidence = "max_probability"
    ) -> None:
        super().__init__(members)
        self.confidence = confidence

    def combine(self, outputs: Tensor) -> Tensor:
        """`(members, …, classes)` to `(…, classes)`."""
        surest = CONFIDENCES[self.confidence](widened(outputs)).argmax(0)
        chosen = surest[None, ..., None].expand(1, *outputs.shape[1:])
        return outputs.gather(0, chosen).squeeze(0)

    def extra_repr(self) -> str:
        return f"names={self.names}, confidence={self.confidence!r}"


class StackedPredictor(Predictor):
    r"""Logits $W\,[p_1, \dots, p_T] + b$ of a linear classifier of all members' class probabilities.

    Args:
        members: The models.
        weight: $W$, `(classes, members * classes)`.
        bias: $b$, `(classes,)`.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, members: Mapping[str, nn.Module] | Members, weight: Tensor, bias: Tensor) -> None:
        super().__init__(members)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def combine(self, outputs: Tensor) -> Tensor:
        """`(members, …, classes)` to `(…, classes)`."""
        features = stacked_probabilities(widened(outputs))
        return (features @ self.weight.to(features).T + self.bias.to(features)).type_as(outputs)


def stacked_probabilities(z: Tensor) -> Tensor:
    """Probabilities `(…, members * classes)` of logits `(members, …, classes)`, member after member."""
    return z.softmax(-1).movedim(0, -2).flatten(-2)


def log_odds(z: Tensor) -> Tensor:
    r"""$\log \frac{p}{1 - p}$ of the largest probability $p$, which does not saturate as $p$ itself does.

    Logits `(…, classes)` to `(…)`.
    """
    top, where = z.max(-1, keepdim=True)
    others = z.scatter(-1, where, -torch.inf)
    return top.squeeze(-1) - others.logsumexp(-1)


def negative_entropy(z: Tensor) -> Tensor:
    r"""$\sum_c p_c \log p_c$ in nats; logits `(…, classes)` to `(…)`."""
    log_p = z.log_softmax(-1)
    # The bound keeps classes that are ruled out by a logit of -inf from giving 0 · inf = NaN.
    return (log_p.exp() * log_p.clamp(min=-1e4)).sum(-1)


CONFIDENCES = {"max_probability": log_odds, "entropy": negative_entropy}


def widened(outputs: Tensor) -> Tensor:
    """In fp32 at least."""
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))
