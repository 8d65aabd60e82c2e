from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.compression.low_rank import LowRank
from fb_merging.compression.magnitude_pruning import MagnitudePruning
from pydantic import ValidationError

from fusionbench_core import MissingCapability, fuse

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
PRUNING = pytest.mark.parametrize("method", ["magnitude_pruning", "random_pruning", "magnitude_diff_pruning"])


def pair(dtype=torch.float32, shape=(6, 10)):
    generator = torch.Generator().manual_seed(1)
    base = {"w": torch.randn(shape, generator=generator), "b": torch.randn(5, generator=generator)}
    model = {
        name: (tensor + 0.1 * torch.randn(tensor.shape, generator=generator)) for name, tensor in base.items()
    }
    return {name: t.to(dtype) for name, t in model.items()}, {name: t.to(dtype) for name, t in base.items()}


def delta_of(model, base):
    return (model["w"].float() - base["w"].float()).double().numpy()


def assert_near(found, wanted, dtype):
    assert np.abs(found["w"].double().numpy() - wanted).max() <= 4 * torch.finfo(dtype).eps * 4


def largest_of_rows(values, kept):
    order = np.argsort(-np.abs(values), axis=1, kind="stable")[:, :kept]
    mask = np.zeros(values.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=1)
    return np.where(mask, values, 0)


@DTYPES
def test_magnitude_pruning_keeps_the_largest_of_each_row(dtype):
    model, _ = pair(dtype)
    found = fuse("magnitude_pruning", {"m": model}, density=0.3)
    assert np.array_equal(found["w"].double().numpy(), largest_of_rows(model["w"].double().numpy(), 3))
    assert torch.equal(found["b"], model["b"])


def test_magnitude_pruning_of_a_whole_matrix_ranks_all_its_entries():
    model, _ = pair()
    found = fuse("magnitude_pruning", {"m": model}, density=0.25, window="tensor")["w"]
    flat = model["w"].abs().flatten().sort(descending=True).values
    assert torch.equal(found, torch.where(model["w"].abs() >= flat[14], model["w"], 0))


@DTYPES
def test_magnitude_diff_pruning_sets_the_smallest_updates_back(dtype):
    model, base = pair(dtype)
    delta, start = delta_of(model, base), base["w"].double().numpy()
    found = fuse("magnitude_diff_pruning", {"m": model}, base, density=0.4)
    assert_near(found, start + largest_of_rows(delta, 4), dtype)
    rescaled = fuse("magnitude_diff_pruning", {"m": model}, base, density=0.4, rescale=True)
    assert_near(rescaled, start + largest_of_rows(delta, 4) / 0.4, dtype)
    smallest = fuse("magnitude_diff_pruning", {"m": model}, base, density=0.4, keep="smallest")
    assert_near(smallest, start + delta - largest_of_rows(delta, 6), dtype)


@PRUNING
def test_two_of_four_entries_of_a_row_stay_and_a_short_block_keeps_two(method):
    model, base = pair()
    found = fuse(method, {"m": model}, base, n=2, m=4)["w"]
    changed = found != (base["w"] if method == "magnitude_diff_pruning" else 0)
    counts = [block.sum(1).tolist() for block in changed.split(4, dim=1)]
    assert counts == [[2] * 6, [2] * 6, [2] * 6]
    if method == "magnitude_pruning":
        assert torch.equal(found[:, :4], torch.from_numpy(largest_of_rows(model["w"][:, :4].numpy(), 2)))


@PRUNING
@pytest.mark.parametrize(("density", "kept"), [(0.5, 5), (0.01, 1), (1.0, 10)])
def test_each_row_keeps_as_many_entries_as_the_density_says(method, density, kept):
    model, base = pair()
    found = fuse(method, {"m": model}, base, density=density)["w"]
    changed = found != (base["w"] if method == "magnitude_diff_pruning" else 0)
    assert changed.sum(1).tolist() == [kept] * 6


def test_random_pruning_keeps_values_and_depends_on_the_seed_alone():
    model, _ = pair(shape=(40, 50))
    one, same, other = (fuse("random_pruning", {"m": model}, seed=seed)["w"] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(one[one != 0], model["w"][one != 0])


@PRUNING
def test_excluded_matrices_and_all_other_tensors_stay(method):
    model, base = pair()
    found = fuse(method, {"m": model}, base, exclude=["w*"])
    assert all(torch.equal(found[name], tensor) for name, tensor in model.items())


@DTYPES
def test_bitdelta_adds_the_mean_magnitude_with_the_sign_of_the_update(dtype):
    model, base = pair(dtype)
    delta = delta_of(model, base)
    found = fuse("bitdelta", {"m": model}, base)
    wanted = base["w"].double().numpy() + np.abs(delta).mean() * np.where(delta > 0, 1, -1)
    assert_near(found, wanted, dtype)
    assert torch.equal(found["b"], model["b"])


@DTYPES
@pytest.mark.parametrize("parameters", [{"rank": 2}, {"energy": 0.6}, {"energy": 1.0}, {}])
def test_low_rank_keeps_leading_singular_triplets(dtype, parameters):
    model, base = pair(dtype)
    u, s, vh = np.linalg.svd(delta_of(model, base), full_matrices=False)
    energy = np.cumsum(s**2) / np.sum(s**2)
    kept = parameters.get("rank") or {0.6: int(np.argmax(energy >= 0.6)) + 1}.get(parameters.get("energy"), 6)
    wanted = base["w"].double().numpy() + (u[:, :kept] * s[:kept]) @ vh[:kept]
    assert_near(fuse("low_rank", {"m": model}, base, **parameters), wanted, dtype)


def test_low_rank_from_a_random_sketch_comes_near_the_best_approximation():
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(60, 50, generator=generator), full_matrices=False)
    s = 0.5 ** torch.arange(50)
    base, model = {"w": torch.zeros(60, 50)}, {"w": (u * s) @ vh}
    found = fuse("low_rank", {"model": model}, base, rank=4, factorization="randomized")["w"]
    torch.testing.assert_close(found, (u[:, :4] * s[:4]) @ vh[:4], rtol=0, atol=0.01 * 0.5**4)


@pytest.mark.parametrize(
    ("cls", "parameters"),
    [
        (MagnitudePruning, {"n": 2}),
        (MagnitudePruning, {"n": 5, "m": 4}),
        (MagnitudePruning, {"n": 2, "m": 4, "density": 0.6}),
        (MagnitudePruning, {"density": 0}),
        (LowRank, {"rank": 2, "energy": 0.5}),
        (LowRank, {"energy": 0.5, "factorization": "randomized"}),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(cls, parameters):
    with pytest.raises(ValidationError):
        cls(**parameters)


def test_blocks_survive_a_round_trip_through_the_artefact():
    method = MagnitudePruning(n=2, m=4)
    assert MagnitudePruning.model_validate(method.model_dump(mode="json")) == method


@PRUNING
def test_one_model_is_compressed_at_a_time(method):
    model, base = pair()
    with pytest.raises(MissingCapability, match="at most one model"):
        fuse(method, {"a": model, "b": model}, base)
