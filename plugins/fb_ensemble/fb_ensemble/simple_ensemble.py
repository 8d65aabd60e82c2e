"""The mean of outputs."""

from __future__ import annotations

from dataclasses import replace

from fb_ensemble.builder import make_predictor
from fb_ensemble.ensemble import MemberMethod, order_of, referring
from fb_ensemble.members import members_of
from fb_ensemble.records import SIMPLE_ENSEMBLE
from fb_ensemble.space import LAWS_OF_PROBABILITIES, Space
from fusionbench_core import Capabilities, Fused, FusionJob, implements


@implements(SIMPLE_ENSEMBLE)
class SimpleEnsemble(MemberMethod):
    r"""The mean of all models' outputs: of logits, of probabilities, or of votes.

    With outputs $z_t = f_t(x)$ of $T$ models and $p_t = \mathrm{softmax}(z_t)$, by `space`:

    $$y = \frac{1}{T} \sum_t z_t, \qquad y = \log \frac{1}{T} \sum_t p_t, \qquad
      y = \log \frac{\prod_t p_t^{1/T}}{\sum_c \prod_t p_{tc}^{1/T}}, \qquad
      y_c = \log \frac{v_c + \epsilon\,\bar p_c}{1 + \epsilon}, \quad
      v_c = \frac1T \big|\{t : c = \arg\max z_t\}\big|$$

    Notes:
        A task attaches its head to every model and averages their logits. Without a task every
        floating tensor that the models give is averaged, however nested; the other spaces are for
        models that give class logits. Every model runs on every input: T times the cost of one.
        The geometric mean (`log_probabilities`) is the mean of logits up to a constant for each input.
        Of classes with equally many votes the one of larger mean probability wins: $\epsilon = 10^{-3}$.

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
        names = order_of(self, job.pool)
        return referring(
            members_of(job.pool, names, self.in_memory),
            make_predictor,
            "predictor",
            in_memory=self.in_memory,
            combine="mean",
            weights=[1 / len(names)] * len(names),
            space=self.space,
        )
