"""Take an update apart into singular directions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Decomposition(NamedTuple):
    """Leading singular directions of an update `(out, in)`.

    Attributes:
        up: `(out, k)`, left singular vectors.
        down: `(k, in)`, singular values times right singular vectors; `up @ down` is the best
            approximation of rank k.
        gate: `(gate_k, in)`, right singular vectors; zero rows where the singular value is zero up to
            rounding, since such directions are arbitrary.
    """

    up: Tensor
    down: Tensor
    gate: Tensor


def decompose(update: Tensor, k: int, gate_k: int) -> Decomposition:
    """The `k` leading singular directions of an update, and the `gate_k` leading ones for its gate.

    Signs of singular vectors are arbitrary, and neither `up @ down` nor norms of `gate @ x` depend on them.
    """
    # LAPACK takes a tall matrix apart three times as fast as its transpose
    if update.shape[0] < update.shape[1]:
        v, s, uh = torch.linalg.svd(update.T, full_matrices=False)
        u, vh = uh.T, v.T
    else:
        u, s, vh = torch.linalg.svd(update, full_matrices=False)
    rounding = torch.finfo(s.dtype).eps * max(update.shape) * s[0]
    gate = torch.where((s > rounding)[:gate_k, None], vh[:gate_k], 0)
    return Decomposition(u[:, :k], s[:k, None] * vh[:k], gate)
