"""A method whose source unpickles; never called."""

from __future__ import annotations

import pickle as p

import torch

from fusionbench_core import MethodRecord, TensorMethod, implements

UNPICKLES = MethodRecord(name="faulty", target="faults_unsafe:Unpickles", summary="a mean")


@implements(UNPICKLES)
class Unpickles(TensorMethod):
    r"""The mean of all models.

    $$\theta = \frac{1}{T} \sum_t \theta_t$$
    """

    def merge(self, group):
        return torch.stack(group.models).mean(0)


def old_masks(file):
    return p.load(file)
