"""TALL-masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from fb_merging.conditioned.masked_method import MaskedMethod
from fb_merging.conditioned.records import TALL_MASK
from fb_merging.operations.combine import add_all
from fb_merging.operations.masks import tall_mask
from fb_merging.operations.per_model import Numbers, is_list, values_of
from fusionbench_core import Capabilities, Law, implements


@implements(TALL_MASK)
class TallMask(MaskedMethod):
    r"""The sum of all task vectors, and a mask for each task of the entries that matter to it.

    With task vectors $\tau_t = \theta_t - \theta_0$, entry by entry:

    $$\theta^{(t)} = \theta_0 + m_t \odot \tau, \qquad \tau = \sum_t \tau_t, \qquad
      m_t = \big[|\tau_t| > \lambda_t\,|\tau - \tau_t|\big]$$

    Notes:
        The result must be told the task: `fused.for_task(name)`. Task pools do, and the report says so.
        The paper chooses each $\lambda_t$ among 0.2, 0.3, …, 0.6 with validation data of its task; the
        default here is the middle of them.

    Reference:
        Wang et al., Localizing Task Information for Improved Model Merging and Compression, ICML 2024,
        arXiv:2405.07813.
    """

    tall_lambda: Numbers = Field(
        default=0.4,
        description="λ_t: how much an update must outweigh the others' to count; one for all models, a list "
        "in config order, or model name -> number",
    )

    @property
    def capabilities(self) -> Capabilities:
        """The record's; a list goes by the order of the models."""
        if not is_list(self.tall_lambda):
            return self.record.capabilities
        laws = self.record.capabilities.laws - {Law.PERMUTATION}
        return dataclasses.replace(self.record.capabilities, ordered=True, laws=laws)

    def check(self, models: Sequence[str]) -> None:
        values_of(self.tall_lambda, models, "tall_lambda")

    def unify(self, deltas: Sequence[Tensor], names: Sequence[str]) -> tuple[Tensor, list[Tensor]]:
        unified, lambdas = add_all(deltas), values_of(self.tall_lambda, names, "tall_lambda")
        return unified, [tall_mask(delta, unified, value) for delta, value in zip(deltas, lambdas)]
