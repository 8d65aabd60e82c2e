"""Random pruning."""

from __future__ import annotations

from torch import Tensor

from fb_merging.compression.pruning import Pruning
from fb_merging.compression.records import RANDOM_PRUNING
from fb_merging.operations.matrices import is_matrix
from fusionbench_core import TensorGroup, implements


@implements(RANDOM_PRUNING)
class RandomPruning(Pruning):
    r"""Keep random entries of each matrix of one model; what other pruning is measured against.

    $$\theta' = m \odot \theta, \qquad m_{ij} = 1[\,r_{ij} \text{ is among the } \rho\,d
      \text{ largest of its row's } d\,], \quad r_{ij} \sim U(0, 1)$$

    Notes:
        Each row keeps exactly as many entries as the density says; with `window="tensor"` each matrix, with
        `n` and `m` each block of a row. Entries that are kept stay as they are. Tensors that are no matrix,
        and those named in `exclude`, stay.

    Reference:
        Liu et al., The Unreasonable Effectiveness of Random Pruning, ICLR 2022, arXiv:2202.02643.
    """

    def merge(self, group: TensorGroup) -> Tensor:
        (model,), (name,) = group.models, group.names
        return self.prune(model, group.uniform(name)) if is_matrix(group, self.exclude) else model
