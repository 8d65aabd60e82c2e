"""What the plan says of memory, against what each method says that it holds."""

from __future__ import annotations

import pytest
import torch
from fb_mixing.depth.depth_upscaling import DepthUpscaling
from fb_mixing.ensembling.dawe import DataAdaptiveWeightEnsembling
from fb_mixing.ensembling.efficient import EfficientWeightEnsemblingMoE
from fb_mixing.ensembling.rank_one_moe import RankOneMoE
from fb_mixing.ensembling.weight_ensembling_moe import WeightEnsemblingMoE
from fb_mixing.recombination.model_recombination import ModelRecombination
from fb_mixing.smile.method import SmileUpscaling
from fb_mixing.sparse.mixtral_merging import MixtralMerging

from fusionbench_core import ModelPool, PooledModel
from fusionbench_core.engine.plan import make_plan

N = 640 * 640
"""Entries of a matrix. There are six of them in feed-forward modules, and two others."""

R = 640 * 640 + 640 + 2 * 640 + 2
"""Entries of a router of two layers for two models. There are three feed-forward modules."""


def pool() -> ModelPool:
    """A base and two models; nothing of them is read."""
    names = [f"layers.{layer}.mlp.fc{number}.weight" for layer in range(3) for number in (1, 2)]
    state = {name: torch.empty(640, 640) for name in (*names, "layers.0.q.weight", "layers.0.k.weight")}
    models = {name: PooledModel(name, content=state) for name in "ab"}
    return ModelPool(models, PooledModel("base", content=state))


STILL = {"steps": 0}
METHODS = [
    # The base, two updates, the routers; and the layers that are replaced, with the updates of one of them.
    (WeightEnsemblingMoE(**STILL), 8 * N + 12 * N + 3 * R + 6 * N + 4 * N),
    # While it learns, the weights of a batch instead of these, gradients of one layer's, and the routers'.
    (WeightEnsemblingMoE(batch_size=4), 8 * N + 12 * N + 3 * R + 4 * (6 + 3) * N + 5 * 3 * R),
    # A value and a position for a tenth of the entries; and what finding them takes.
    (EfficientWeightEnsemblingMoE(**STILL), 8 * N + 12 * N // 5 + R + 6 * N + 4 * N + 8 * N),
    # Routers of one layer; and what a decomposition takes.
    (RankOneMoE(rank=4, **STILL), 8 * N + 2 * 6 * 4 * 1280 + 3 * 8 * 641 + 6 * N + 4 * N + 8 * N),
    (DataAdaptiveWeightEnsembling(**STILL), 8 * N * (1 + 2 + 1)),
    (DataAdaptiveWeightEnsembling(batch_size=3), 8 * N * (1 + 2 + 6)),
    (MixtralMerging(), 8 * N + 6 * N + 6 * N),
    (SmileUpscaling(k=16, gate_k=4), 8 * N + 8 * N + 2 * 8 * (16 * 1280 + 4 * 640 + 640) + 2 * N),
    (ModelRecombination(), 8 * N),
]


@pytest.mark.parametrize(("method", "entries"), METHODS)
def test_the_plan_states_what_is_held_in_fp32(method, entries):
    assert make_plan(method, pool()).peak_bytes == 4 * entries


@pytest.mark.parametrize(
    ("method", "copied"),
    [
        # Two of eight layers of one tensor are left out of each of two copies; of two layers none is.
        (DepthUpscaling(drop=0.25), 2 * 6 + 2 * 2),
        (DepthUpscaling(layers=(0, 1, 1)), 3 + 3),
    ],
)
def test_stacks_of_unequal_depth_are_counted_one_by_one(method, copied):
    names = [f"encoder.layers.{layer}.w" for layer in range(8)] + [f"decoder.layers.{n}.w" for n in range(2)]
    state = {name: torch.empty(640, 640) for name in (*names, "embed.weight")}
    whole = ModelPool({"a": PooledModel("a", content=state)})
    assert make_plan(method, whole).peak_bytes == 4 * N * (11 + copied)
