"""Consensus task arithmetic."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.operations.combine import add_all
from fb_merging.task_vectors.consensus import ConsensusMethod
from fb_merging.task_vectors.records import CONSENSUS_TA
from fusionbench_core import TensorGroup, implements


@implements(CONSENSUS_TA)
class ConsensusTa(ConsensusMethod):
    r"""Task arithmetic without the entries that fewer than two tasks use.

    With task vectors $\tau_t = \theta_t - \theta_0$, entry by entry:

    $$\theta = \theta_0 + \lambda\,\Big[\sum_t m_t \ge k\Big] \odot \tau_{\mathrm{MTL}}, \qquad
      m_t = \big[|\tau_t| > \lambda_t\,|\tau_{\mathrm{MTL}} - \tau_t|\big], \quad
      \tau_{\mathrm{MTL}} = \sum_t \tau_t$$

    Notes:
        Entries that no task uses are catastrophic, those that one uses selfish: $k = 2$ drops both, $k = 1$
        the former, $k = 0$ none. The paper chooses each $\lambda_t$ among 0.2, 0.3, …, 0.6 with validation
        data of its task; the default here is the middle of them.

    Reference:
        Wang et al., Localizing Task Information for Improved Model Merging and Compression, ICML 2024,
        arXiv:2405.07813.
    """

    scaling_factor: float = Field(default=0.3, description="λ: multiplies the masked task vector")

    def merge(self, group: TensorGroup) -> Tensor:
        return torch.add(group.base, self.consensus(group), alpha=self.scaling_factor)

    def merged_task_vector(self, group: TensorGroup) -> Tensor:
        return add_all(group.deltas)
