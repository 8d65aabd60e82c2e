"""Shared adversarial unlearning of a merged model."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.learned.attacked_batch import AttackedBatch
from fb_merging.learned.post_defense_awm import PostDefenseAWM
from fb_merging.learned.records import POST_DEFENSE_SAU
from fusionbench_core import implements


@implements(POST_DEFENSE_SAU)
class PostDefenseSAU(PostDefenseAWM):
    r"""Mask the update of a merged model, so that it unlearns what perturbations turn it to.

    As `post_defense_awm`, with $\hat y(x)$ and $\hat y_m(x)$ the predictions of the masked and of the merged
    model, $p$ and $p_m$ their probabilities, and $x' = x + \delta_t$. The perturbation also makes both alike
    on samples that it does not turn to the same class in both, and the mask unlearns the class that the
    merged model is turned to:

    $$\min_\delta\ -\beta_1\,\mathrm{CE}\big(f_t(x'; \theta), \hat y(x)\big)
        + \beta_2\, 1[x \notin S]\, \mathrm{JS}\big(p(x'), p_m(x')\big), \qquad
      S = \{x : \hat y(x') \ne \hat y(x),\ \hat y_m(x') \ne \hat y_m(x),\ \hat y(x') = \hat y_m(x')\}$$

    $$\min_\ell\ H(p(x)) + \alpha\,H(p(x')) - \gamma\, 1[x \in P] \log\big(1 - p(x')_{\hat y_m(x')}\big),
      \qquad P = \{x : \hat y_m(x') \ne \hat y(x),\ \hat y_m(x') \ne \hat y_m(x)\}$$

    in means over samples, where JS is the Jensen-Shannon divergence in nats.

    Notes:
        Shared adversarial unlearning fine-tunes with labels; this is its variant for merged models, in
        FusionBench, which has no gradient where $p(x')_{\hat y_m(x')}$ is below 0.001; here there is no such
        bound. Else as `post_defense_awm`. In the measurement described there `shared_weight=1` and
        `perturbation_learning_rate=0.05` bring attack success from 93 to 6 %, near the 5 % of honest
        experts, and cost 4.5 points of accuracy.

    Reference:
        Wei et al., Shared Adversarial Unlearning: Backdoor Mitigation by Unlearning Shared Adversarial
        Examples, NeurIPS 2023, arXiv:2307.10562; Yang et al., Mitigating the Backdoor Effect for Multi-Task
        Model Merging via Safety-Aware Subspace, ICLR 2025, arXiv:2410.13910.
    """

    shared_weight: float = Field(default=0.01, ge=0, description="γ: of unlearning what is turned to")
    attack_weight: float = Field(default=0.5, ge=0, description="β₁: how much the perturbation turns")
    agreement_weight: float = Field(
        default=0.5, ge=0, description="β₂: how much the perturbation makes both models alike"
    )

    def attack_loss(self, seen: AttackedBatch, unmasked: AttackedBatch) -> Tensor:
        turned = super().attack_loss(seen, unmasked)
        divergence = jensen_shannon(seen.attacked, unmasked.attacked)
        apart = (divergence * ~_shared(seen, unmasked)).sum() / len(divergence)
        return self.attack_weight * turned + self.agreement_weight * apart

    def defence_loss(self, seen: AttackedBatch, unmasked: AttackedBatch) -> Tensor:
        found = unmasked.attacked.argmax(1)
        poisoned = (found != seen.clean.argmax(1)) & (found != unmasked.clean.argmax(1))
        p = seen.attacked.float().softmax(1).gather(1, found[:, None]).squeeze(1)
        unlearned = -torch.log1p(-p.clamp(max=1 - 1e-6))
        defended = super().defence_loss(seen, unmasked)
        return defended + self.shared_weight * (unlearned * poisoned).sum() / len(p)


def jensen_shannon(one: Tensor, other: Tensor) -> Tensor:
    """Jensen-Shannon divergence in nats of the distributions that logits `(n, classes)` stand for: `(n,)`."""
    log_p, log_q = (each.float().log_softmax(1).clamp(min=-1e4) for each in (one, other))
    p, q = log_p.exp(), log_q.exp()
    log_m = ((p + q) / 2).clamp(min=torch.finfo(p.dtype).tiny).log()
    return ((p * (log_p - log_m) + q * (log_q - log_m)) / 2).sum(1)


def _shared(seen: AttackedBatch, unmasked: AttackedBatch) -> Tensor:
    """Which samples the perturbation turns to the same class in both models: `(n,)`."""
    found, other = seen.attacked.argmax(1), unmasked.attacked.argmax(1)
    turned = (found != seen.clean.argmax(1)) & (other != unmasked.clean.argmax(1))
    return turned & (found == other)
