"""Methods that select entries, against formulas in float64."""

from __future__ import annotations

import pytest
import torch
from fb_merging.averages.arcee_fusion import divergence
from fb_merging.averages.nearswap import NearSwap
from fb_merging.task_vectors.sce import Sce
from pydantic import ValidationError

from fusionbench_core import MissingCapability, fuse

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def tensorwise(models, base, formula):
    """`formula(base, *models)` of each name, in float64 after fp32 reads; other dtypes from the base."""
    return {
        name: formula(t.double(), *(state[name].double() for state in models.values()))
        if t.is_floating_point()
        else t
        for name, t in base.items()
    }


@DTYPES
@pytest.mark.parametrize("factor", [0.3, 0.0, -1.0])
def test_expo_extrapolates_from_the_base_through_the_mean(zoo, assert_near, dtype, factor):
    models, base = zoo(dtype, count=2)
    found = fuse("expo", models, base, extrapolation_factor=factor)
    expected = tensorwise(models, base, lambda b, x, y: (x + y) / 2 + factor * ((x + y) / 2 - b))
    assert_near(found, expected, [base, *models.values()])


@DTYPES
@pytest.mark.parametrize("t", [0.0, 0.05, 10.0])
def test_nearswap_weighs_the_model_by_its_distance(zoo, assert_near, dtype, t):
    models, base = zoo(dtype, count=1)

    def formula(b, x):
        weight = (t / (x - b).abs().clamp(min=1e-30)).clamp(0, 1)
        return weight * x + (1 - weight) * b

    assert_near(
        fuse("nearswap", models, base, t=t), tensorwise(models, base, formula), [base, *models.values()]
    )


def test_nearswap_takes_one_model(zoo):
    models, base = zoo(torch.float32, count=2)
    with pytest.raises(MissingCapability):
        fuse("nearswap", models, base)
    with pytest.raises(ValidationError):
        NearSwap(t=-1e-4)


def fusion(base, model):
    if not base.numel():
        return base
    p, q = model.softmax(-1), base.softmax(-1)
    score = (model - base).abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    ranked = score.flatten().sort().values
    low, middle, high = (ranked[int(q * (len(ranked) - 1))] for q in (0.25, 0.5, 0.75))
    return torch.where(score >= middle + 1.5 * (high - low), model, base)


@DTYPES
def test_arcee_fusion_follows_the_formula(zoo, assert_near, dtype):
    models, base = zoo(dtype, count=1)
    found = fuse("arcee_fusion", models, base)
    assert_near(found, tensorwise(models, base, fusion), [base, *models.values()])
    taken = (found["conv"] != base["conv"]).double().mean()
    assert 0 < float(taken) < 0.5


def test_the_divergence_of_close_rows_is_not_lost_in_rounding():
    base = torch.zeros(3, 1000)
    model = base.clone()
    model[1, 0] = 1e-4
    # Second order: half the variance of the logits, p (1 - p) eps^2 / 2 with p = 1/1000.
    wanted = 0.5 * 1e-3 * (1 - 1e-3) * 1e-8
    found = divergence(model, base).flatten().tolist()
    assert found[0] == found[2] == 0
    assert found[1] == pytest.approx(wanted, rel=1e-3)


def select_calculate_erase(density):
    def formula(base, *models):
        deltas = torch.stack([(x.float() - base.float()).double() for x in models])
        if density < 1 and base.numel():
            variance = deltas.var(0, unbiased=False)
            variance[(deltas == deltas[0]).all(0)] = 0
            varying = int((variance > 0).sum())
            if not varying:
                return base
            bound = variance.flatten().sort(descending=True).values[max(1, round(density * varying)) - 1]
            deltas = deltas * (variance >= bound)
        energy = deltas.square().reshape(len(deltas), -1).sum(1)
        if not energy.any():
            return base
        share = (energy / energy.sum()).view(-1, *[1] * base.dim())
        agreeing = (deltas.sign() == deltas.sum(0).sign()) & (deltas != 0)
        total = (share * agreeing).sum(0)
        return base + (share * agreeing * deltas).sum(0) / torch.where(total > 0, total, 1)

    return formula


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_sce_follows_the_formula(zoo, assert_near, dtype, density):
    models, base = zoo(dtype)
    found = fuse("sce", models, base, density=density)
    expected = tensorwise(models, base, select_calculate_erase(density))
    assert_near(found, expected, [base, *models.values()])


def test_sce_weighs_models_by_energy_however_small_their_updates_are():
    base = {"w": torch.zeros(2)}
    models = [{"w": torch.tensor([3e-5, 0.0])}, {"w": torch.tensor([1e-5, 2e-5])}]
    # Energies 9 and 5 (x 1e-10), both positive: 9/14 * 3 + 5/14 * 1 in the first entry.
    wanted = [(9 * 3 + 5 * 1) / 14 * 1e-5, 2e-5]
    assert fuse(Sce(density=1), models, base)["w"].tolist() == pytest.approx(wanted)


def test_sce_of_models_that_agree_keeps_the_base(zoo):
    models, base = zoo(torch.float32, count=1)
    found = fuse("sce", dict.fromkeys("abc", models["model0"]), base)
    assert all(torch.equal(found[name], base[name]) for name in base)


@DTYPES
def test_magmax_takes_the_largest_update(zoo, assert_near, dtype):
    models, base = zoo(dtype, count=4)

    def formula(b, *x):
        deltas = torch.stack([each - b for each in x])
        return b + 0.5 * deltas.gather(0, deltas.abs().argmax(0, keepdim=True))[0]

    assert_near(fuse("magmax", models, base), tensorwise(models, base, formula), [base, *models.values()])
