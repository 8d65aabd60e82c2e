"""Scaling by depth and by names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from math import prod
from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from fb_merging.operations.per_model import Named
from fb_merging.post.post_operation import PostOperation
from fb_merging.post.records import SCALED
from fusionbench_core import TensorGroup, implements


@implements(SCALED)
class Scaled(PostOperation):
    r"""Scale the task vector that another method merged, tensor by tensor.

    With $\tau^{(n)}$ the merged task vector in tensor $n$, of layer $\ell$ of $L$, counted from 0:

    $$\theta^{(n)} = \theta_0^{(n)} + \lambda\,f\!\left(\tfrac{\ell}{L-1}\right)
                     \prod_{p\ \text{matches}\ n} c_p\;\tau^{(n)}$$

    Notes:
        $f$ is given by its values at evenly spaced depths, from the first layer to the last, and is linear in
        between: two values are a line, as many as there are layers are one a layer. It is 1 outside the
        layers. mergekit's gradients of a parameter are the same. All patterns $p$ that match the name of a
        tensor count.

    Reference:
        Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, arXiv:2212.04089.
    """

    scaling_factor: float = Field(default=1.0, description="λ: multiplies the whole task vector")
    by_depth: tuple[float, ...] = Field(
        default=(), description="factors at evenly spaced depths, from the first layer to the last"
    )
    by_name: Annotated[Mapping[str, float], AfterValidator(Named)] = Field(
        default={}, description="glob pattern of tensor names -> factor, e.g. {'*.mlp.*': 0.5}"
    )

    def merge(self, group: TensorGroup) -> Tensor:
        depth = factor_at(self.by_depth, group.layer, group.layers)
        named = prod(factor for name, factor in self.by_name.items() if fnmatchcase(group.name, name))
        base, update = self.merged(group)
        return torch.add(base, update, alpha=self.scaling_factor * depth * named)


def factor_at(anchors: Sequence[float], layer: int | None, layers: int | None) -> float:
    """The factor of a layer, linear between evenly spaced anchors; 1 outside the layers."""
    if not anchors or layer is None or layers is None:
        return 1.0
    place = layer * (len(anchors) - 1) / max(layers - 1, 1)
    low = min(int(place), max(len(anchors) - 2, 0))
    high = min(low + 1, len(anchors) - 1)
    return anchors[low] + (place - low) * (anchors[high] - anchors[low])
