"""The algebraic laws that the records declare, on models of awkward tensors."""

from __future__ import annotations

import pytest
import torch
from fb_merging.plugin import ENTRIES

from fusionbench_core import Law, MethodRecord, NonFiniteInput, TensorMethod, fuse
from fusionbench_core.registry import default_registry

METHODS = [
    record
    for record in ENTRIES
    if record.capabilities.output == "weights"
    and not (record.capabilities.tasks or record.capabilities.statistics)
]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
CASES = [(record, law) for record in METHODS for law in sorted(record.capabilities.laws)]
LAWS = pytest.mark.parametrize(("record", "law"), CASES, ids=[f"{r.name}-{law.value}" for r, law in CASES])


def run(record: MethodRecord, models, base, **options):
    method = default_registry().load("method", f"merging/{record.name}")()
    assert isinstance(method, TensorMethod)
    return fuse(method, models, base, **options)


def count_for(record: MethodRecord, wanted: int) -> int:
    return min(wanted, record.capabilities.max_models or wanted)


def mapped(state, change):
    return {name: change(t) if t.is_floating_point() else t for name, t in state.items()}


@LAWS
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_declared_law_holds(zoo, assert_near, record, law, dtype):
    count = count_for(record, 3)
    models, base = zoo(dtype, count=count)
    inputs = [base, *models.values()]
    first = models["model0"]
    if law is Law.IDENTICAL:
        assert_near(run(record, dict.fromkeys(models, first), first), first, inputs)
    elif law is Law.SINGLE:
        assert_near(run(record, {"only": first}, base), first, inputs)
    elif law is Law.BASE_FIXED_POINT:
        assert_near(run(record, dict.fromkeys(models, base), base), base, inputs)
    elif law is Law.PERMUTATION:
        renamed = dict(reversed(models.items()))
        if not record.capabilities.random:  # random numbers go by the names
            renamed = {f"model{index}": model for index, model in enumerate(renamed.values())}
        assert_near(run(record, renamed, base), run(record, models, base), inputs)
    elif law is Law.SCALE:
        scaled = {name: mapped(model, lambda t: 4 * t) for name, model in models.items()}
        found = run(record, scaled, mapped(base, lambda t: 4 * t))
        assert_near(mapped(found, lambda t: t / 4), run(record, models, base), inputs)
    else:
        assert law is Law.TRANSLATION
        # 1/2 is added without rounding to numbers that are multiples of it, so no entry changes its rank.
        coarse = {name: mapped(m, lambda t: (t * 2**6).round() / 2**6) for name, m in models.items()}
        start = mapped(base, lambda t: (t * 2**6).round() / 2**6)
        moved = {name: mapped(model, lambda t: t + 0.5) for name, model in coarse.items()}
        found = run(record, moved, mapped(start, lambda t: t + 0.5))
        wanted = mapped(run(record, coarse, start), lambda t: t.double() + 0.5)
        assert_near(found, wanted, [start, *coarse.values(), *moved.values()])


@pytest.mark.parametrize("record", METHODS, ids=lambda record: record.name)
def test_inputs_stay_as_they_were(zoo, record):
    models, base = zoo(torch.float32, count=count_for(record, 2))
    copies = [{name: tensor.clone() for name, tensor in state.items()} for state in (base, *models.values())]
    merged = run(record, models, base)
    for copy, state in zip(copies, (base, *models.values())):
        for name, tensor in state.items():
            assert torch.equal(copy[name], tensor)
            assert merged[name].numel() == 0 or merged[name].data_ptr() != tensor.data_ptr()
            assert not merged[name].requires_grad


@pytest.mark.parametrize("record", METHODS, ids=lambda record: record.name)
def test_threads_default_dtype_and_global_random_state_do_not_matter(zoo, record):
    models, base = zoo(torch.float32, count=count_for(record, 2))
    before = torch.random.get_rng_state()
    plain = run(record, models, base, engine={"threads": 1})
    try:
        torch.set_default_dtype(torch.float64)
        other = run(record, models, base, engine={"threads": 3}, seed=0 if record.capabilities.random else 7)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(before, torch.random.get_rng_state())
    for name, tensor in plain.items():
        assert tensor.dtype == base[name].dtype
        assert torch.equal(tensor, other[name])


@pytest.mark.parametrize("record", METHODS, ids=lambda record: record.name)
def test_fp64_accumulation_agrees_with_fp32(zoo, assert_near, record):
    models, base = zoo(torch.float32, count=count_for(record, 2))
    wide = run(record, models, base, engine={"accumulate": "float64"})
    assert_near(run(record, models, base), wide, [base, *models.values()])


@pytest.mark.parametrize("record", METHODS, ids=lambda record: record.name)
def test_nan_is_refused(zoo, record):
    models, base = zoo(torch.float32, count=count_for(record, 2))
    models[list(models)[-1]]["bias"][2] = torch.nan
    with pytest.raises(NonFiniteInput, match="NaN"):
        run(record, models, base)


@pytest.mark.parametrize(
    "record", [record for record in METHODS if record.capabilities.random], ids=lambda record: record.name
)
def test_the_seed_decides_what_a_random_method_draws(zoo, record):
    models, base = zoo(torch.float32, count=count_for(record, 2))
    one, other = run(record, models, base, seed=1), run(record, models, base, seed=2)
    assert not torch.equal(one["matrix"], other["matrix"])
