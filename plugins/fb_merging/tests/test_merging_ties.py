from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from fb_merging.operations import magnitude
from fb_merging.operations.combine import DISJOINT, add_all, elect_sign, mean
from fb_merging.operations.magnitude import MagnitudeThreshold, thresholds_of
from fb_merging.operations.sparsify import count_kept, keep_largest
from fb_merging.task_vectors.ties_merging import TiesMerging
from pydantic import ValidationError
from torch import Tensor

from fusionbench_core import Survey, fuse


def naive_ties(models, base, density, trim, merge_func, factor):
    """Whole float64 vectors, kthvalue, the paper's formula."""
    names = [name for name, tensor in base.items() if tensor.is_floating_point()]

    def wide(state):
        # What the engine computes on: differences in fp32, unless the model is in fp64.
        work = torch.promote_types(next(iter(base.values())).dtype, torch.float32)
        return {name: (state[name].to(work) - base[name].to(work)).double() for name in names}

    deltas = [wide(state) for state in models.values()]
    for delta in deltas:
        groups = [names] if trim == "model" else [[name] for name in names]
        for each in groups:
            vector = torch.cat([delta[name].flatten() for name in each]).abs()
            if len(vector):
                kept = max(1, round(density * len(vector)))
                bound = vector.kthvalue(len(vector) - kept + 1).values
                for name in each:
                    delta[name] = torch.where(delta[name].abs() >= bound, delta[name], 0)
    result = {}
    for name, tensor in base.items():
        if name not in names:
            result[name] = tensor
            continue
        stack = torch.stack([delta[name] for delta in deltas])
        sign = stack.sum(0).sign()
        agreeing = torch.where(stack.sign() == sign, stack, 0)
        if merge_func == "mean":
            merged = agreeing.sum(0) / (agreeing != 0).sum(0).clamp(min=1)
        elif merge_func == "sum":
            merged = agreeing.sum(0)
        else:
            merged = agreeing.abs().amax(0) * sign
        result[name] = tensor.double() + factor * merged
    return result


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trim", ["model", "tensor"])
@pytest.mark.parametrize("density", [0.01, 0.2, 0.55, 1.0])
def test_ties_follows_the_formula(zoo, assert_near, dtype, trim, density):
    models, base = zoo(dtype)
    merged = fuse("ties_merging", models, base, density=density, trim=trim)
    expected = naive_ties(models, base, density, trim, "mean", 1.0)
    assert_near(merged, expected, [base, *models.values()])


@pytest.mark.parametrize("merge_func", ["mean", "sum", "max"])
def test_ties_merges_agreeing_updates_as_asked(zoo, assert_near, merge_func):
    models, base = zoo(torch.float32, count=5)
    merged = fuse("ties_merging", models, base, density=0.5, merge_func=merge_func, scaling_factor=0.3)
    expected = naive_ties(models, base, 0.5, "model", merge_func, 0.3)
    assert_near(merged, expected, [base, *models.values()])


def test_an_entry_by_hand():
    base = {"w": torch.zeros(4)}
    models = {
        "a": {"w": torch.tensor([4.0, 1.0, -2.0, 3.0])},
        "b": {"w": torch.tensor([2.0, 0.5, 3.0, -3.0])},
        "c": {"w": torch.tensor([-1.0, 0.25, 4.0, 8.0])},
    }
    # Trimmed to two entries each: a (4, 0, 0, 3), b (0, 0, 3, -3), c (0, 0, 4, 8).
    merged = fuse("ties_merging", models, base, density=0.5)
    assert merged["w"].tolist() == [4.0, 0.0, 3.5, 5.5]


def test_all_entries_as_large_as_the_threshold_are_kept():
    base = {"w": torch.zeros(6)}
    merged = fuse("ties_merging", [{"w": torch.tensor([1.0, -1, 1, 2, 0.5, 0])}], base, density=1 / 3)
    assert merged["w"].tolist() == [1.0, -1.0, 1.0, 2.0, 0.0, 0.0]


def test_updates_that_cancel_leave_the_base():
    base = {"w": torch.tensor([1.0, 1.0])}
    models = {"a": {"w": torch.tensor([1.5, 2.0])}, "b": {"w": torch.tensor([0.5, 2.0])}}
    merged = fuse("ties_merging", models, base, density=1)
    assert merged["w"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_combining_does_not_write_to_its_inputs(dtype):
    deltas = [torch.tensor([1.0, -2.0], dtype=dtype), torch.tensor([3.0, 1.0], dtype=dtype)]
    for combine in (mean, elect_sign, add_all, *(partial(f, sign=torch.ones(2)) for f in DISJOINT.values())):
        combine(deltas)
        assert [delta.tolist() for delta in deltas] == [[1.0, -2.0], [3.0, 1.0]]


@pytest.mark.parametrize("trim", ["model", "tensor"])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_models_equal_to_the_base_give_the_base(zoo, trim, density):
    _, base = zoo(torch.float32)
    merged = fuse(TiesMerging(trim=trim, density=density), {"a": base, "b": base}, base)
    assert all(torch.equal(merged[name], base[name]) for name in base)


@pytest.mark.parametrize("trim", ["model", "tensor"])
def test_tiny_numbers_make_no_nan(trim):
    tiny = torch.tensor([1e-45, -1e-40, 0.0, -0.0, 3e-39, 1e-38])
    merged = fuse("ties_merging", [{"w": tiny}, {"w": -tiny}], {"w": torch.zeros(6)}, density=0.5, trim=trim)
    assert torch.isfinite(merged["w"]).all()


def thresholds(deltas: list[dict[str, Tensor]], density: float, group) -> list[float]:
    """What a survey gives when it sees these task vectors tensor by tensor."""
    state: Survey | list[float] = MagnitudeThreshold(density)
    rounds = 0
    while isinstance(state, Survey):
        groups = [group([delta[name] for delta in deltas], torch.zeros(())) for name in deltas[0]]
        seen = [state.observe(each) for each in groups]
        state = state.advance(sum(seen[1:], start=seen[0]))
        rounds += 1
    assert rounds == TiesMerging().capabilities.surveys
    return state


def cut(value: float) -> float:
    """The largest fp32 number that is not above `value`."""
    narrow = np.float32(value)
    return float(narrow if float(narrow) <= value else np.nextafter(narrow, np.float32(0)))


@pytest.mark.parametrize(
    "dtypes", [("float32",) * 4, ("float64",) * 4, ("float32", "float64", "float64", "float32")]
)
@pytest.mark.parametrize("scale", [1e-43, 1e-30, 1.0, 1e30])
def test_the_threshold_is_exactly_the_kth_largest_magnitude(group, dtypes, scale):
    generator = torch.Generator().manual_seed(0)
    sizes = zip("abcd", (1000, 1, 313, 0), dtypes)
    shapes = [(name, size, getattr(torch, dtype)) for name, size, dtype in sizes]
    deltas = [
        {
            name: (torch.randn(size, generator=generator, dtype=torch.float64) * scale).to(dtype)
            for name, size, dtype in shapes
        }
        for _ in range(3)
    ]
    for density in (1e-6, 0.1, 0.5, 0.9, 1 - 1e-6):
        for delta, bound in zip(deltas, thresholds(deltas, density, group)):
            vector = torch.cat([tensor.double() for tensor in delta.values()]).abs()
            wanted = count_kept(density, len(vector))
            assert bound == cut(float(vector.kthvalue(len(vector) - wanted + 1).values))
            kept = sum(int(torch.count_nonzero(keep_largest(each, bound))) for each in delta.values())
            assert kept == int((vector[vector > 0] >= bound).sum())
            assert kept == wanted or scale < 1e-38


def test_entries_that_equal_the_threshold_are_kept_and_smaller_ones_are_not():
    below = 1 - 2**-24
    assert keep_largest(torch.tensor([1.0, -1.0, below, 2.0]), 1.0).tolist() == [1.0, -1.0, 0.0, 2.0]
    narrow = torch.tensor([1.0, -1.0, 1 - 2**-53], dtype=torch.float64)
    assert keep_largest(narrow, 1.0).tolist() == [1.0, -1.0, 0.0]
    assert (
        keep_largest(torch.tensor([1e-45, 0.0, -1.0]), 0.0).tolist() == torch.tensor([1e-45, 0, -1]).tolist()
    )


def test_numbers_beyond_fp32_have_a_threshold_too(group):
    delta = {"w": torch.tensor([1e300, -1e200, 1.0, 1e-300], dtype=torch.float64)}
    assert thresholds([delta], 0.25, group) == [float(np.finfo(np.float32).max)]
    assert thresholds([delta], 0.75, group) == [1.0]
    assert thresholds([delta], 1, group) == [0.0]


def survey_of(vectors: list[Tensor], density: float, group) -> tuple[list[float], int]:
    """What a survey finds in one model whose tensors are these, and the number of rounds it takes."""
    state: Survey | list[float] = MagnitudeThreshold(density)
    rounds = 0
    while isinstance(state, Survey):
        groups = [group([vector], torch.zeros(())) for vector in vectors]
        for number, each in enumerate(groups):
            each.name = f"layers.{number}.weight"
        seen = [state.observe(each) for each in groups]
        state = state.advance(sum(seen[1:], start=seen[0]))
        rounds += 1
    return state, rounds


def kth_largest(vectors: list[Tensor], density: float) -> float:
    every = torch.cat(vectors).abs().double().sort(descending=True).values
    return float(every[count_kept(density, len(every)) - 1])


@pytest.mark.parametrize("density", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_sample_that_misleads_costs_rounds_and_not_exactness(group, density, scale):
    generator = torch.Generator().manual_seed(3)
    vectors = [torch.randn(4096, generator=generator) for _ in range(64)]
    for vector in vectors:
        vector[:64] *= scale
    found, rounds = survey_of(vectors, density, group)
    assert found == [kth_largest(vectors, density)]
    assert rounds > 2


@pytest.mark.parametrize("density", [0.001, 0.2, 0.7])
@pytest.mark.parametrize("buckets", [1 << 4, 1 << 10, 1 << 21])
def test_entries_that_are_too_many_to_keep_are_counted(group, monkeypatch, density, buckets):
    monkeypatch.setattr(magnitude, "PENDING", 50)
    monkeypatch.setattr(magnitude, "CHUNKS", 3)
    monkeypatch.setattr(magnitude, "BUCKETS", buckets)
    generator = torch.Generator().manual_seed(4)
    vectors = [torch.randn(1000, generator=generator) for _ in range(40)]
    vectors += [torch.zeros(1000), torch.full((500,), 0.25)]
    found, _ = survey_of(vectors, density, group)
    assert found == [kth_largest(vectors, density)]


def test_thresholds_of_zero_deltas_and_of_nothing_are_zero(group):
    assert thresholds_of(group([torch.zeros(10)], torch.zeros(10)), 0.3) == [0.0]
    assert thresholds_of(group([torch.zeros(0)], torch.zeros(0)), 0.3) == [0.0]
    assert MagnitudeThreshold(0.3).advance(None) == []


@pytest.mark.parametrize("density", [0, -0.1, 1.5, 20, float("nan")])
def test_density_is_a_fraction(density):
    with pytest.raises(ValidationError):
        TiesMerging(density=density)


def test_trimming_by_tensor_needs_whole_tensors_and_no_survey():
    capabilities = TiesMerging(trim="tensor").capabilities
    assert (capabilities.locality, capabilities.surveys) == ("tensor", 0)
    assert TiesMerging(density=1.0).survey() is None


@pytest.mark.parametrize("trim", ["model", "tensor"])
def test_threads_and_pieces_change_no_bit(trim):
    generator = torch.Generator().manual_seed(2)
    base = {name: torch.randn(size, generator=generator) for name, size in {"a": 600_000, "b": 3_000}.items()}
    models = [
        {
            name: tensor + 0.01 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in base.items()
        }
        for _ in range(3)
    ]
    one, four = (
        fuse("ties_merging", models, base, trim=trim, engine={"threads": threads}) for threads in (1, 4)
    )
    split = fuse(
        "ties_merging",
        [{name: tensor.view(-1, 1000) for name, tensor in model.items()} for model in models],
        {name: tensor.view(-1, 1000) for name, tensor in base.items()},
        trim=trim,
    )
    for name in base:
        assert torch.equal(one[name], four[name])
        assert torch.equal(one[name], split[name].view(-1))
