"""Wanda."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from fb_merging.compression.pruning import Pruning
from fb_merging.compression.records import WANDA_PRUNING
from fb_merging.data_driven.matching import statistic_of
from fb_merging.operations.matrices import is_matrix
from fusionbench_core import Capabilities, TensorGroup, implements


@implements(WANDA_PRUNING)
class WandaPruning(Pruning):
    r"""Wanda: keep the entries of linear layers whose magnitude times the size of their input is largest.

    With $X_j$ all values of input feature j on samples of the model's task:

    $$\theta' = m \odot \theta, \qquad m_{ij} = 1[\,|\theta_{ij}|\, \lVert X_j \rVert_2
      \text{ is among the } \rho\,d \text{ largest of its row's } d\,]$$

    Notes:
        All sizes come from one pass of the model as it is. The authors prune layer by layer and feed each
        what the pruned ones before it give.
        `window`, `n` and `m` as for `magnitude_pruning`. Tensors that are no weight of a linear layer that
        the data reach, and those named in `exclude`, stay. The file does not get smaller: zeros are stored.

    Reference:
        Sun et al., A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024,
        arXiv:2306.11695.
    """

    samples: int = Field(default=128, gt=0, description="samples that the inputs are seen on")
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="split the samples come from; test only if the run is transductive"
    )

    @property
    def capabilities(self) -> Capabilities:
        """The record's: a statistic is for a whole tensor."""
        return self.record.capabilities

    def statistics(self) -> Mapping[str, Mapping[str, Any]]:
        return {"activations": {"samples": self.samples, "split": self.split}}

    def merge(self, group: TensorGroup) -> Tensor:
        (model,) = group.models
        width = group.shape[1] if len(group.shape) == 2 else None
        squares = statistic_of(group, "wanda_pruning", "activations", (width,))
        if not squares or not is_matrix(group, self.exclude):
            return model
        return self.prune(model, model.abs() * squares[0].sqrt().to(model))
