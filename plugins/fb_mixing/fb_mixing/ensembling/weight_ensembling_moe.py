"""Weight-ensembling mixtures of experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fb_mixing.ensembling.ensembling_method import EnsemblingMethod
from fb_mixing.ensembling.layers import EnsembledLinear
from fb_mixing.ensembling.records import WEIGHT_ENSEMBLING_MOE
from fusionbench_core import implements


@implements(WEIGHT_ENSEMBLING_MOE)
class WeightEnsemblingMoE(EnsemblingMethod):
    r"""WEMoE: a router adds up the task vectors of each feed-forward module anew for every sample.

    $$\theta_{\mathrm{mlp}}(x) = \theta_0 + \sum_{t=1}^{T} r_t(x)\,(\theta_t - \theta_0), \qquad
      r(x) = \frac1L \sum_{i=1}^{L} W_2\,\mathrm{relu}(W_1 x_i + b_1) + b_2$$

    for the tokens $x_1, \dots, x_L$ that the module sees; `router_layers` = 1 is $W_2 x_i + b_2$, and 0 is
    $b_2$ alone. Everything else is task arithmetic. The routers start at `init_coefficient` and learn to make
    the predictions on unlabelled data certain: they minimise the sum over the tasks of the mean entropy.

    Notes:
        Linear layers of the modules become mixtures, with their biases; norms in them are merged. The paper
        and FusionBench route on average over a batch while they learn, and by sample afterwards; here it is
        always by sample. Tokens that are padding count for a sample's average.
        FusionBench takes 1000 steps, on test inputs, which needs `split="test"` and a transductive run here.
        Routers look at many features at once: a learning rate ten times as large soon makes predictions
        certain and wrong.
        Memory: the base and T copies of what became mixtures, in fp32, and the activations of one task, with
        one copy of each mixture's weights a sample.

    Reference:
        Tang et al., Merging Multi-Task Models via Weight-Ensembling Mixture of Experts, ICML 2024,
        arXiv:2402.00433.
    """

    def layer_shape(self, models: int) -> dict[str, Any]:
        return {"count": models, "rank_one": False}

    def add_updates(
        self, layer: EnsembledLinear, updates: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> None:
        for number, update in enumerate(updates):
            layer.delta[number] = update
        for number, bias in enumerate(biases):
            layer.delta_bias[number] = bias
