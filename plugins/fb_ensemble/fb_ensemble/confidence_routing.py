"""Every input to the model that is surest about it."""

from __future__ import annotations

from pydantic import Field

from fb_ensemble.builder import make_predictor
from fb_ensemble.ensemble import MemberMethod, order_of, referring
from fb_ensemble.members import members_of
from fb_ensemble.predictors import Confidence
from fb_ensemble.records import CONFIDENCE_ROUTING
from fusionbench_core import Fused, FusionJob, implements


@implements(CONFIDENCE_ROUTING)
class ConfidenceRouting(MemberMethod):
    r"""For each input the outputs of the one model that is surest of its prediction.

    With $z_t = f_t(x)$ and $p_t = \mathrm{softmax}(z_t)$, by `confidence`:

    $$y = z_{t^*}, \qquad t^* = \arg\max_t \max_c p_{tc} \qquad\text{or}\qquad
      t^* = \arg\min_t -\sum_c p_{tc} \log p_{tc}$$

    Notes:
        Every model runs on every input, since none knows how sure the others are: T times the cost of one.
        Largest probabilities are compared as log-odds, which differ where probabilities round to 1.
        Confidence is a fair judge among models that are calibrated alike; one that is too sure of itself
        takes inputs that are not its own. Hendrycks and Gimpel (ICLR 2017, arXiv:1610.02136) show how far
        the largest probability tells known from unknown inputs.
    """

    confidence: Confidence = Field(
        default="max_probability",
        description="how sure a model is: its largest probability, or how small the entropy of its "
        "probabilities is",
    )

    def fuse(self, job: FusionJob) -> Fused:
        return referring(
            members_of(job.pool, order_of(self, job.pool), self.in_memory),
            make_predictor,
            "predictor",
            in_memory=self.in_memory,
            combine="surest",
            confidence=self.confidence,
        )
