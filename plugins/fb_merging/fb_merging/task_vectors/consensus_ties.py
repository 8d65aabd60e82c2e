"""Consensus TIES."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fb_merging.task_vectors.combiners import Elect
from fb_merging.task_vectors.consensus import ConsensusMethod
from fb_merging.task_vectors.records import CONSENSUS_TIES
from fb_merging.task_vectors.sparsifiers import KeepLargest
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fusionbench_core import Capabilities, Survey, TensorGroup, implements


@implements(CONSENSUS_TIES)
class ConsensusTies(ConsensusMethod):
    r"""TIES without the entries that fewer than two tasks use.

    With task vectors $\tau_t = \theta_t - \theta_0$, entry by entry, and $\tau_{\mathrm{MTL}}$ what
    `ties_merging` makes of them:

    $$\theta = \theta_0 + \lambda\,\Big[\sum_t m_t \ge k\Big] \odot \tau_{\mathrm{MTL}}, \qquad
      m_t = \big[|\tau_t| > \lambda_t\,|\tau_{\mathrm{MTL}} - \tau_t|\big]$$

    Notes:
        The masks look at whole task vectors, not at trimmed ones. The paper chooses each $\lambda_t$ among
        0.2, 0.3, …, 0.6 with validation data of its task; the default here is the middle of them.

    Reference:
        Wang et al., Localizing Task Information for Improved Model Merging and Compression, ICML 2024,
        arXiv:2405.07813.
    """

    density: float = Field(
        default=0.2, gt=0, le=1, description="fraction of the entries kept in each task vector"
    )
    trim: Literal["model", "tensor"] = Field(
        default="model", description="one threshold over all merged entries of a model, or one a tensor"
    )
    merge_func: Literal["mean", "sum", "max"] = Field(
        default="sum", description="what becomes of the updates that have the elected sign"
    )
    scaling_factor: float = Field(default=0.3, description="λ: multiplies the masked task vector")

    @cached_property
    def ties(self) -> TaskVectorMerging:
        """What makes the multi-task vector."""
        trimmed = KeepLargest(density=self.density, trim=self.trim)
        return TaskVectorMerging(sparsify=(trimmed,), combine=Elect(merge_func=self.merge_func))

    @property
    def capabilities(self) -> Capabilities:
        """With the locality and the passes of the trimming."""
        needed = self.ties.capabilities
        return dataclasses.replace(super().capabilities, locality=needed.locality, surveys=needed.surveys)

    def survey(self) -> Survey | None:
        return self.ties.survey()

    def merge(self, group: TensorGroup) -> Tensor:
        return torch.add(group.base, self.consensus(group), alpha=self.scaling_factor)

    def merged_task_vector(self, group: TensorGroup) -> Tensor:
        return self.ties.merged_task_vector(group)
