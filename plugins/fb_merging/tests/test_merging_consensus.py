"""Methods that look at which models changed an entry, against formulas in float64."""

from __future__ import annotations

import pytest
import torch
from fb_merging.operations.masks import agreement, tall_mask
from fb_merging.task_vectors.cabs import Cabs, keep_in_blocks
from fb_merging.task_vectors.consensus_ta import ConsensusTa
from fb_merging.task_vectors.consensus_ties import ConsensusTies
from fb_merging.task_vectors.ramplus import RamPlus
from pydantic import ValidationError

from fusionbench_core import ConfigError, Law, fuse

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def stacked(models, base):
    """Name -> float64 task vectors `(models, …)`, differences taken in fp32 as the engine does."""
    return {
        name: torch.stack([(s[name].float() - base[name].float()).double() for s in models.values()])
        for name, tensor in base.items()
        if tensor.is_floating_point()
    }


def added(base, merged):
    return {name: t.double() + merged[name] if name in merged else t for name, t in base.items()}


def masked(deltas, merged, lambdas, k):
    """The formula of the paper, with distances of weights replaced by those of task vectors."""
    shape = (-1,) + (1,) * merged.dim()
    lambdas = torch.tensor(lambdas, dtype=torch.float64).view(shape)
    used = deltas.abs() > lambdas * (merged - deltas).abs()
    return torch.where(used.sum(0) >= k, merged, 0)


@DTYPES
@pytest.mark.parametrize("k", [0, 1, 2, 4])
def test_consensus_ta_follows_the_formula(zoo, assert_near, dtype, k):
    models, base = zoo(dtype, count=4)
    found = fuse("consensus_ta", models, base, min_tasks=k)
    merged = {n: 0.3 * masked(d, d.sum(0), [0.4] * 4, k) for n, d in stacked(models, base).items()}
    assert_near(found, added(base, merged), [base, *models.values()])


def test_without_a_consensus_consensus_ta_is_task_arithmetic(zoo):
    models, base = zoo(torch.float32)
    one, other = fuse("consensus_ta", models, base, min_tasks=0), fuse("task_arithmetic", models, base)
    assert all(torch.equal(one[name], other[name]) for name in one)
    none = fuse("consensus_ta", models, base, min_tasks=4)
    assert all(torch.equal(none[name], base[name]) for name in base)


def test_consensus_takes_a_threshold_for_each_model(zoo, assert_near):
    models, base = zoo(torch.float32)
    lambdas = {"model2": 0.6, "model0": 0.2, "model1": 5.0}
    found = fuse("consensus_ta", models, base, tall_lambda=lambdas)
    merged = {n: 0.3 * masked(d, d.sum(0), [0.2, 5.0, 0.6], 2) for n, d in stacked(models, base).items()}
    assert_near(found, added(base, merged), [base, *models.values()])
    with pytest.raises(ConfigError):
        fuse("consensus_ta", models, base, tall_lambda=[0.4])
    assert Law.PERMUTATION not in ConsensusTa(tall_lambda=(0.1, 0.2)).capabilities.laws


@DTYPES
def test_consensus_ties_masks_what_ties_makes(zoo, assert_near, dtype):
    models, base = zoo(dtype)
    found = fuse("consensus_ties", models, base, density=0.5)
    deltas = stacked(models, base)
    vectors = torch.cat([d.flatten(1) if d.dim() > 1 else d[:, None] for d in deltas.values()], 1).abs()
    kept = round(0.5 * vectors.shape[1])
    bounds = vectors.sort(1, descending=True).values[:, kept - 1]
    merged = {}
    for name, d in deltas.items():
        trimmed = torch.where(d.abs() >= bounds.view(-1, *[1] * (d.dim() - 1)), d, 0)
        sign = trimmed.sum(0).sign()
        ties = torch.where(trimmed.sign() == sign, trimmed, 0).sum(0)
        merged[name] = 0.3 * masked(d, ties, [0.4] * 3, 2)
    assert_near(found, added(base, merged), [base, *models.values()])
    assert ConsensusTies(trim="tensor").capabilities.locality == "tensor"
    assert ConsensusTies(trim="tensor").survey() is None


def test_masks_by_hand():
    deltas = [torch.tensor([1.0, 1.0, 0.0]), torch.tensor([1.0, -0.1, 0.0])]
    merged = deltas[0] + deltas[1]
    masks = [tall_mask(delta, merged, 0.5) for delta in deltas]
    assert [mask.tolist() for mask in masks] == [[True, True, False], [True, False, False]]
    assert agreement(masks).tolist() == [2, 1, 0]


def sparse_models(zoo, dtype):
    """Models of which each changes some entries."""
    models, base = zoo(dtype)
    generator = torch.Generator().manual_seed(1)
    for state in models.values():
        for name, tensor in state.items():
            if tensor.is_floating_point():
                changed = torch.rand(tensor.shape, generator=generator) < 0.5
                state[name] = torch.where(changed, tensor, base[name])
    return models, base


@DTYPES
def test_ram_averages_over_the_models_that_are_active(zoo, assert_near, dtype):
    models, base = sparse_models(zoo, dtype)
    found = fuse("ram", models, base, epsilon=0.02)
    merged = {}
    for name, d in stacked(models, base).items():
        active = d.abs() > 0.02
        merged[name] = (d * active).sum(0) / active.sum(0).clamp(min=1)
    assert_near(found, added(base, merged), [base, *models.values()])


@DTYPES
@pytest.mark.parametrize("granularity", ["model", "tensor"])
def test_ramplus_amplifies_what_one_model_changed(zoo, assert_near, dtype, granularity):
    models, base = sparse_models(zoo, dtype)
    found = fuse("ramplus", models, base, r=0.5, alpha=0.8, granularity=granularity)
    deltas = stacked(models, base)
    active = {n: d.abs() > 1e-5 for n, d in deltas.items()}

    def counts(names):
        shared, unique = torch.zeros(3), torch.zeros(3)
        for name in names:
            alone = active[name].sum(0) == 1
            shared += torch.stack([(each & ~alone).sum() for each in active[name]])
            unique += torch.stack([(each & alone).sum() for each in active[name]])
        return shared, unique

    merged = {}
    for name, d in deltas.items():
        shared, unique = counts(deltas if granularity == "model" else [name])
        ratio = (shared.double() / unique.clamp(min=1e-5).double()).clamp(max=0.8)
        factor = (1 + 0.5 * ratio).view(-1, *[1] * (d.dim() - 1))
        alone = active[name].sum(0) == 1
        mean = (d * active[name]).sum(0) / active[name].sum(0).clamp(min=1)
        merged[name] = torch.where(alone, (d * active[name] * factor).sum(0), mean)
    assert_near(found, added(base, merged), [base, *models.values()])


def test_ramplus_counts_in_whole_tensors_or_in_one_pass():
    assert RamPlus().capabilities.surveys == 1
    local = RamPlus(granularity="tensor").capabilities
    assert (local.surveys, local.locality) == (0, "tensor")


@DTYPES
def test_metagpt_weighs_whole_models_by_their_squared_lengths(zoo, assert_near, dtype):
    models, base = zoo(dtype)
    models["model1"] = {
        n: (base[n] + 3 * (t - base[n])) if t.is_floating_point() else t for n, t in models["model1"].items()
    }
    found = fuse("metagpt", models, base)
    deltas = stacked(models, base)
    energy = sum(d.square().reshape(3, -1).sum(1) for d in deltas.values())
    share = energy / energy.sum()
    merged = {n: (d * share.view(-1, *[1] * (d.dim() - 1))).sum(0) for n, d in deltas.items()}
    assert_near(found, added(base, merged), [base, *models.values()])


@DTYPES
def test_localize_and_stitch_averages_where_the_kept_updates_overlap(zoo, assert_near, dtype):
    models, base = zoo(dtype)
    found = fuse("localize_and_stitch", models, base, density=0.3)
    deltas = stacked(models, base)
    vectors = torch.cat([d.reshape(3, -1) for d in deltas.values()], 1).abs()
    bounds = vectors.sort(1, descending=True).values[:, round(0.3 * vectors.shape[1]) - 1]
    merged = {}
    for name, d in deltas.items():
        kept = d.abs() >= bounds.view(-1, *[1] * (d.dim() - 1))
        merged[name] = (d * kept).sum(0) / kept.sum(0).clamp(min=1)
    assert_near(found, added(base, merged), [base, *models.values()])


def pruned_in_order(deltas, n, m):
    """Block by block, entry by entry."""
    flat = deltas.reshape(len(deltas), -1).clone()
    taken: set[int] = set()
    for row in flat:
        mine: set[int] = set()
        for start in range(0, len(row), m):
            block = [i for i in range(start, min(start + m, len(row))) if i not in taken and row[i] != 0]
            mine |= set(sorted(block, key=lambda i: -abs(float(row[i])))[:n])
        for i in range(len(row)):
            if i not in mine:
                row[i] = 0
        taken |= mine
    return flat.view(deltas.shape)


@DTYPES
@pytest.mark.parametrize(("n", "m"), [(1, 4), (2, 6), (3, 3), (64, 256)])
def test_cabs_follows_the_order_of_the_models(zoo, assert_near, dtype, n, m):
    models, base = zoo(dtype)
    models = dict(reversed(models.items()))
    found = fuse("cabs", models, base, n=n, m=m, weights=[1, 0.5, 2])
    weights = torch.tensor([1, 0.5, 2], dtype=torch.float64)
    merged = {
        name: (pruned_in_order(d, n, m) * weights.view(-1, *[1] * (d.dim() - 1))).sum(0)
        for name, d in stacked(models, base).items()
    }
    assert_near(found, added(base, merged), [base, *models.values()])


def test_blocks_by_hand():
    delta = torch.tensor([1.0, -3.0, 2.0, 2.0, 0.5, 0.0])
    assert keep_in_blocks(delta, 1, 2).tolist() == [0, -3, 2, 0, 0.5, 0]
    assert keep_in_blocks(delta, 2, 4).tolist() == [0, -3, 2, 0, 0.5, 0]
    assert keep_in_blocks(torch.zeros(0), 1, 2).tolist() == []


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (Cabs, {"n": 5, "m": 4}),
        (Cabs, {"n": 0}),
        (ConsensusTa, {"min_tasks": -1}),
        (ConsensusTies, {"density": 0}),
        (RamPlus, {"alpha": -1}),
    ],
)
def test_parameters_that_cannot_work_are_refused(method, parameters):
    with pytest.raises(ValidationError):
        method(**parameters)
