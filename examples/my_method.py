"""A fusion method in one file: fb run --plugin examples/my_method.py method=trimmed_mean"""

import torch
from pydantic import Field

from fusionbench_core import Capabilities, ConfigError, Law, MethodRecord, TensorMethod, hookimpl, implements

TRIMMED_MEAN = MethodRecord(
    name="trimmed_mean",
    target="my_method:TrimmedMean",
    summary="the base plus the mean of the updates that are neither the smallest nor the largest",
    capabilities=Capabilities(
        base="required", min_models=3, laws=frozenset({Law.PERMUTATION, Law.BASE_FIXED_POINT})
    ),
)


@hookimpl
def fb_methods():
    return [TRIMMED_MEAN]


@implements(TRIMMED_MEAN)
class TrimmedMean(TensorMethod):
    r"""Leave out, for each entry, the $k$ smallest and the $k$ largest updates; average the rest.

    $$\theta = \theta_0 + \frac{\lambda}{T - 2k} \sum_{i=k+1}^{T-k} \tau_{(i)}, \qquad
      \tau_{(1)} \le \dots \le \tau_{(T)}$$
    """

    trim: int = Field(default=1, ge=0, description="k: values left out at either end, for each entry")
    scaling_factor: float = Field(default=1.0, description="λ: multiplies the trimmed mean")

    def check(self, models):
        if len(models) <= 2 * self.trim:
            raise ConfigError(f"trim={self.trim} leaves nothing of {len(models)} models", fix="trim less")

    def merge(self, group):
        ordered = torch.stack(group.deltas).sort(dim=0).values
        return group.base + self.scaling_factor * ordered[self.trim : len(ordered) - self.trim].mean(dim=0)
