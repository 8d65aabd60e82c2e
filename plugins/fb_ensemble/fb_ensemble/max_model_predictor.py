"""The largest output."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from fb_ensemble.builder import make_predictor
from fb_ensemble.ensemble import MemberMethod, order_of, referring
from fb_ensemble.members import members_of
from fb_ensemble.records import MAX_MODEL_PREDICTOR
from fb_ensemble.space import LAWS_OF_PROBABILITIES
from fusionbench_core import Capabilities, Fused, FusionJob, implements


@implements(MAX_MODEL_PREDICTOR)
class MaxModelPredictor(MemberMethod):
    r"""The largest of all models' outputs, entry by entry.

    $$y_c = \max_t f_t(x)_c \qquad\text{or}\qquad y_c = \max_t \log \mathrm{softmax}(f_t(x))_c$$

    so that the predicted class is the one some model gives the largest logit, or probability, of all.

    Notes:
        As in FusionBench, logits are compared as they are, without softmax, by default: a model whose
        logits are larger in general wins more often. The largest probabilities predict what
        `confidence_routing` predicts, and do not add up to 1.
    """

    space: Literal["logits", "probabilities"] = Field(
        default="logits",
        description="what is compared: `logits` as they are, or `probabilities` (softmax over the last "
        "dimension), whose logarithm is the result",
    )

    @property
    def capabilities(self) -> Capabilities:
        """The record's, less the laws that log-probabilities break."""
        record = self.record.capabilities
        return record if self.space == "logits" else replace(record, laws=LAWS_OF_PROBABILITIES)

    def fuse(self, job: FusionJob) -> Fused:
        return referring(
            members_of(job.pool, order_of(self, job.pool), self.in_memory),
            make_predictor,
            "predictor",
            in_memory=self.in_memory,
            combine="max",
            space=self.space,
        )
