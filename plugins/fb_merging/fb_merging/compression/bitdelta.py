"""BitDelta."""

from __future__ import annotations

import torch
from torch import Tensor

from fb_merging.compression.records import BITDELTA
from fb_merging.operations.matrices import LeftAlone, is_matrix
from fb_merging.operations.vectors import l1_norm
from fusionbench_core import TensorGroup, TensorMethod, implements


@implements(BITDELTA)
class BitDelta(TensorMethod):
    r"""Each task matrix of one model becomes its signs times one number.

    With $\tau = \theta - \theta_0$ a matrix of $n$ entries, and the sign of 0 taken as -1:

    $$\theta' = \theta_0 + \alpha\,\mathrm{sgn}(\tau), \qquad \alpha = \tfrac1n \lVert \tau \rVert_1$$

    Notes:
        This $\alpha$ is the closest in the L2 norm. The paper then trains it on data to match the model's
        outputs, which is not done here. The result is dense: it shows what one bit a weight costs in
        accuracy, not the bytes that it saves. Tensors that are no matrix, and those named in `exclude`, stay
        the model's; the paper leaves embeddings and heads as they are, too.

    Reference:
        Liu et al., BitDelta: Your Fine-Tune May Only Be Worth One Bit, NeurIPS 2024, arXiv:2402.10193.
    """

    exclude: LeftAlone = ()

    def merge(self, group: TensorGroup) -> Tensor:
        if not is_matrix(group, self.exclude):
            return group.models[0]
        (delta,) = group.deltas
        scale = l1_norm(delta) / delta.numel()
        return torch.where(delta > 0, group.base + scale, group.base - scale)
