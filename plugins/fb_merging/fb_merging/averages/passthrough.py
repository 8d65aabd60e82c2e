"""One model as it is."""

from __future__ import annotations

import dataclasses

from pydantic import Field
from torch import Tensor

from fb_merging.averages.records import PASSTHROUGH
from fusionbench_core import Capabilities, Law, TensorGroup, TensorMethod, implements


@implements(PASSTHROUGH)
class Passthrough(TensorMethod):
    r"""One model, its weights multiplied by a number.

    $$\theta = s\,\theta_1$$

    Notes:
        With $s = 1$ the weights are copied, e.g. to convert their dtype or to shard them anew.

    Reference:
        Goddard et al., Arcee's MergeKit: A Toolkit for Merging Large Language Models, EMNLP 2024,
        arXiv:2403.13257.
    """

    scale: float = Field(default=1.0, description="multiplies all weights")

    @property
    def capabilities(self) -> Capabilities:
        """The record's, less the laws that scaling breaks."""
        if self.scale == 1:
            return self.record.capabilities
        return dataclasses.replace(self.record.capabilities, laws=frozenset({Law.PERMUTATION, Law.SCALE}))

    def merge(self, group: TensorGroup) -> Tensor:
        return group.models[0] * self.scale
