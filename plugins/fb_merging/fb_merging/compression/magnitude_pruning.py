"""Magnitude pruning."""

from __future__ import annotations

from torch import Tensor

from fb_merging.compression.pruning import Pruning
from fb_merging.compression.records import MAGNITUDE_PRUNING
from fb_merging.operations.matrices import is_matrix
from fusionbench_core import TensorGroup, implements


@implements(MAGNITUDE_PRUNING)
class MagnitudePruning(Pruning):
    r"""Keep the entries of largest magnitude of each matrix of one model.

    $$\theta' = m \odot \theta, \qquad m_{ij} = 1[\,|\theta_{ij}| \text{ is among the } \rho\,d
      \text{ largest of its row's } d\,]$$

    Notes:
        `window="tensor"` ranks all entries of a matrix. `n` and `m` keep the `n` largest of every `m`
        consecutive entries of a row instead, e.g. 2:4, which some hardware runs faster. Tensors that are no
        matrix, and those named in `exclude`, stay: name embeddings and heads there.
        The file does not get smaller: zeros are stored. Nothing is trained again, as the paper does.

    Reference:
        Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015,
        arXiv:1506.02626.
    """

    def merge(self, group: TensorGroup) -> Tensor:
        (model,) = group.models
        return self.prune(model, model.abs()) if is_matrix(group, self.exclude) else model
