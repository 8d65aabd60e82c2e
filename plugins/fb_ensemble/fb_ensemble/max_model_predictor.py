"""The largest output."""

from __future__ import annotations

from fb_ensemble.ensemble import ensemble
from fb_ensemble.plugin import MAX_MODEL_PREDICTOR
from fusionbench_core import Fused, FusionJob, ModelMethod, implements


@implements(MAX_MODEL_PREDICTOR)
class MaxModelPredictor(ModelMethod):
    r"""The largest of all models' outputs, entry by entry.

    $$y_c = \max_t f_t(x)_c$$

    so that the predicted class is the one some model gives the largest logit of all.

    Notes:
        As in FusionBench, logits are compared as they are, without softmax: a model whose logits are
        larger in general wins more often.
    """

    def fuse(self, job: FusionJob) -> Fused:
        return ensemble(job.pool, combine="max")
