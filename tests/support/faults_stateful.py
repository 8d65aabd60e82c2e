"""A method that keeps state in its module."""

from __future__ import annotations

import torch

from fusionbench_core import MethodRecord, TensorMethod, implements

REMEMBERS = MethodRecord(name="faulty", target="faults_stateful:Remembers", summary="a mean")
_NORMS: dict[str, float] = {}


@implements(REMEMBERS)
class Remembers(TensorMethod):
    r"""The mean of all models.

    $$\theta = \frac{1}{T} \sum_t \theta_t$$
    """

    def merge(self, group):
        _NORMS[group.name] = float(group.models[0].norm())
        return torch.stack(group.models).mean(0)
