"""Where outputs are averaged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fusionbench_core import Law

Space = Annotated[
    Literal["logits", "probabilities", "log_probabilities", "votes"],
    Field(
        description="what is averaged: `logits` as they are, `probabilities` (softmax over the last "
        "dimension), `log_probabilities` (their geometric mean) or `votes` (one a model, for its largest "
        "logit); the result of the latter three is a logarithm"
    ),
]

LAWS_OF_PROBABILITIES = frozenset({Law.PERMUTATION})
"""Laws of averaged probabilities: their logarithms are the members' logits up to a constant only."""

TIE_BREAK = 1e-3
"""Weight of the mean probability beside a vote: it decides between classes with equally many votes."""


def mean_logits(z: Tensor, w: Tensor) -> Tensor:
    r"""$\sum_t w_t z_t$ of outputs `(members, …, classes)`, weights `(members, 1, …)`."""
    return (z * w).sum(0)


def mean_probabilities(z: Tensor, w: Tensor) -> Tensor:
    r"""$\log \sum_t w_t\,\mathrm{softmax}(z_t)$, without leaving log space; shapes as above."""
    return (z.log_softmax(-1) + w.log()).logsumexp(0)


def geometric_mean(z: Tensor, w: Tensor) -> Tensor:
    r"""$\log \prod_t \mathrm{softmax}(z_t)^{w_t}$, normalised; shapes as above."""
    return (z.log_softmax(-1) * w).sum(0).log_softmax(-1)


def vote_shares(z: Tensor, w: Tensor) -> Tensor:
    r"""$\log \frac{v + \epsilon\,p}{1 + \epsilon}$ of votes $v_c = \sum_t w_t 1[c = \arg\max z_t]$ and the
    mean probability $p$; shapes as above."""
    votes = (F.one_hot(z.argmax(-1), z.shape[-1]) * w).sum(0)
    shares = votes.log().logaddexp(mean_probabilities(z, w) + math.log(TIE_BREAK))
    return shares - math.log1p(TIE_BREAK)


MEANS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logits": mean_logits,
    "probabilities": mean_probabilities,
    "log_probabilities": geometric_mean,
    "votes": vote_shares,
}
"""Space -> weighted mean in it."""
