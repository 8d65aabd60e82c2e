"""The mean of outputs."""

from __future__ import annotations

from dataclasses import replace

from fb_ensemble.ensemble import ensemble
from fb_ensemble.plugin import SIMPLE_ENSEMBLE
from fb_ensemble.space import LAWS_OF_PROBABILITIES, Space
from fusionbench_core import Capabilities, Fused, FusionJob, ModelMethod, implements


@implements(SIMPLE_ENSEMBLE)
class SimpleEnsemble(ModelMethod):
    r"""The mean of all models' outputs.

    With outputs $z_t = f_t(x)$ of $T$ models, in logit space or in probability space:

    $$y = \frac{1}{T} \sum_t z_t \qquad\text{or}\qquad y = \log \frac{1}{T} \sum_t \mathrm{softmax}(z_t)$$

    Notes:
        A task attaches its head to every model and averages their logits. Without a task every
        floating tensor that the models give is averaged, however nested; probability space is for
        models that give class logits. Every model runs on every input: T times the cost of one.

    Reference:
        Hansen and Salamon, Neural network ensembles, IEEE TPAMI 12(10), 1990.
    """

    space: Space = "logits"

    @property
    def capabilities(self) -> Capabilities:
        """The record's, less the laws that log-probabilities break."""
        record = self.record.capabilities
        return record if self.space == "logits" else replace(record, laws=LAWS_OF_PROBABILITIES)

    def fuse(self, job: FusionJob) -> Fused:
        size = len(job.pool)
        return ensemble(job.pool, combine="mean", weights=[1 / size] * size, space=self.space)
