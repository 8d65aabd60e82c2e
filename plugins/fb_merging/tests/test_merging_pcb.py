"""PCB-Merging, against whole float64 vectors."""

from __future__ import annotations

import pytest
import torch

from fusionbench_core import fuse


def competition(models, base, density, factor):
    """Flatten everything, sort, follow the authors' steps."""
    names = [name for name, tensor in base.items() if tensor.is_floating_point()]
    vectors = torch.stack(
        [torch.cat([(s[n].float() - base[n].float()).flatten() for n in names]) for s in models.values()]
    )
    rough = vectors.double()
    count, size = rough.shape
    ranked = rough.abs().sort(1, descending=True).values
    high = ranked[:, max(1, round(1e-4 * size)) - 1, None]
    low = ranked[:, max(1, round((1 - 1e-4) * size)) - 1, None]
    clipped = rough.abs().clamp(low, high)
    score = torch.exp(count * ((clipped - low) / (high - low)) ** 2) * torch.tanh(rough * rough.sum(0))
    score = score.clamp(min=0)
    bound = score.sort(1, descending=True).values[:, max(1, round(density * size)) - 1, None]
    share = (score - bound).clamp(min=0) / (score.amax(1, keepdim=True) - bound)
    total = share.sum(0)
    merged = (share * rough.sign() * clipped).sum(0) / torch.where(total > 0, total, 1)
    pieces = dict(zip(names, merged.split([base[n].numel() for n in names])))
    return {n: t.double() + factor * pieces[n].view(t.shape) if n in pieces else t for n, t in base.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("density", [0.05, 0.1, 0.4])
def test_pcb_follows_the_formula(zoo, assert_near, dtype, density):
    models, base = zoo(dtype, count=4)
    found = fuse("pcb_merging", models, base, density=density)
    assert_near(found, competition(models, base, density, 1.2), [base, *models.values()])


def test_clipping_takes_off_the_tails():
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.zeros(200, 150)}
    models = {name: {"w": 0.01 * torch.randn(200, 150, generator=generator)} for name in "ab"}
    models["a"]["w"][0, 0] = 5.0
    found = fuse("pcb_merging", models, base, density=0.2)["w"].double()
    expected = competition(models, base, 0.2, 1.2)["w"]
    assert float((found - expected).abs().max()) < 1e-5
    assert float(found.abs().max()) < 1


def test_many_models_do_not_overflow():
    update = torch.tensor([0.1, -0.2, 0.3, 0.4])
    found = fuse("pcb_merging", [{"w": update}] * 90, {"w": torch.zeros(4)}, density=0.5, scaling_factor=1.0)
    # Two of four are not below the bound, and the smaller one is the bound, of weight 0.
    assert found["w"].tolist() == pytest.approx([0.0, 0.0, 0.0, 0.4])


def test_updates_of_one_size_are_all_kept():
    base = {"w": torch.zeros(4)}
    found = fuse("pcb_merging", [{"w": torch.tensor([1.0, -1.0, 1.0, 0.0])}], base, scaling_factor=1.0)
    assert found["w"].tolist() == [1.0, -1.0, 1.0, 0.0]
