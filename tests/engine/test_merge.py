"""The streaming engine: right numbers, and the same bits however it is run."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from toy_methods import ALL, Arithmetic, Mean, Noisy, record, state

from fusionbench_core import (
    ConfigError,
    IncompatibleModels,
    MethodError,
    MissingCapability,
    NonFiniteInput,
    TensorMethod,
    fuse,
    implements,
    open_checkpoint,
    write_safetensors,
)


def merged(method, seeds=(1, 2, 3), dtype=torch.float32, **options):
    models = {f"m{seed}": state(seed, dtype) for seed in seeds}
    return fuse(method, models, base=state(9, dtype), **options)


def same(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def test_task_arithmetic_equals_its_formula_in_float64():
    result = merged(Arithmetic(scale=0.3))
    for name in ("big", "vector", "one", "scalar", "strided"):
        base = state(9)[name].double()
        expected = base + 0.3 * sum(state(seed)[name].double() - base for seed in (1, 2, 3))
        bound = 4 * torch.finfo(torch.float32).eps * 30
        torch.testing.assert_close(result[name].double(), expected, rtol=0, atol=bound)


def test_keys_shapes_and_dtypes_are_kept():
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        result = merged(Mean(), dtype=dtype)
        assert list(result) == list(state(1))
        assert all(
            result[k].dtype == v.dtype and result[k].shape == v.shape for k, v in state(1, dtype).items()
        )


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.record.name)
def test_bits_do_not_depend_on_the_number_of_threads(method):
    one = merged(method, engine={"threads": 1})
    assert same(one, merged(method, engine={"threads": 2}))
    assert same(one, merged(method, engine={"threads": 7}))


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.record.name)
def test_bits_do_not_depend_on_intra_op_threads(method):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = merged(method)
        torch.set_num_threads(3)
        assert same(one, merged(method))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.record.name)
def test_bits_do_not_depend_on_model_order(method):
    assert same(merged(method, (1, 2, 3)), merged(method, (3, 1, 2)))


@pytest.mark.parametrize("method", ALL, ids=lambda m: m.record.name)
def test_bits_do_not_depend_on_key_order(method):
    shuffled = {f"m{s}": dict(reversed(state(s).items())) for s in (1, 2, 3)}
    result = fuse(method, shuffled, base=dict(reversed(state(9).items())))
    expected = merged(method)
    assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_a_global_seed_is_neither_read_nor_changed():
    torch.manual_seed(1)
    first = merged(Noisy(), seed=5)
    torch.manual_seed(2)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    second = merged(Noisy(), seed=5)
    assert same(first, second)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()


def test_another_seed_gives_another_result():
    assert not same(merged(Noisy(), seed=5), merged(Noisy(), seed=6))


def test_random_numbers_are_uniform_and_differ_between_models_and_tensors():
    from fusionbench_core.randomness import uniform_block

    a = uniform_block(0, "m", "t", 0, 200_000)
    assert a.min() >= 0
    assert a.max() < 1
    assert abs(a.double().mean().item() - 0.5) < 4 * (1 / 12 / 200_000) ** 0.5
    assert torch.equal(uniform_block(0, "m", "t", 70_001, 140_003), a[70_001:140_003])
    for other in (uniform_block(0, "n", "t", 0, 99), uniform_block(0, "m", "u", 0, 99)):
        assert not torch.equal(other, a[:99])


def test_half_precision_sums_in_fp32():
    # A running bf16 sum of these 16 values ends at 1.0703125.
    values = [{"w": torch.full((4,), 1 + i / 100, dtype=torch.bfloat16)} for i in range(16)]
    expected = sum(float(v["w"][0]) for v in values) / 16
    result = fuse(Mean(), values)["w"][0]
    assert result == torch.tensor(expected, dtype=torch.float64).to(torch.bfloat16)


def test_fp64_is_not_rounded_to_fp32():
    a, b = torch.tensor([1.0 + 2**-40], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    assert fuse(Mean(), [{"w": a}, {"w": b}])["w"].item() == 1.0 + 2**-41


def test_mixed_dtypes_are_summed_in_the_widest_whatever_the_models_are_called():
    narrow = {"w": torch.tensor([1.0])}
    wide = {"w": torch.tensor([1.0 + 2**-40], dtype=torch.float64)}
    for names in ("ab", "ba"):
        result = fuse(Mean(), {names[0]: narrow, names[1]: wide})["w"]
        assert result.dtype == torch.float64
        assert result.item() == 1.0 + 2**-41


def test_inputs_are_untouched_and_share_no_storage_with_the_output():
    @implements(record("vandal", base="required"))
    class Vandal(TensorMethod):
        def merge(self, group):
            for tensor in (*group.models, group.base):
                tensor.zero_()
            return group.models[0]

    models = {"a": state(1), "b": state(2)}
    base = state(9)
    result = fuse(Vandal(), models, base=base)
    assert all(torch.equal(models["a"][k], v) for k, v in state(1).items())
    assert all(torch.equal(base[k], v) for k, v in state(9).items())
    ours = {t.untyped_storage().data_ptr() for t in result.values() if t.numel()}
    theirs = {
        t.untyped_storage().data_ptr() for m in (*models.values(), base) for t in m.values() if t.numel()
    }
    assert not ours & theirs


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_inputs_name_model_and_tensor(bad):
    models = {"good": state(1), "broken": state(2)}
    models["broken"]["big"][1000, 3] = bad
    with pytest.raises(NonFiniteInput) as caught:
        fuse(Mean(), models)
    assert caught.value.where["model"] == "broken"
    assert caught.value.where["tensor"] == "big"
    assert "big" in fuse(Mean(), models, engine={"check_finite": False})


def test_non_finite_results_are_not_passed_on():
    @implements(record("divider"))
    class Divider(TensorMethod):
        def merge(self, group):
            return group.models[0] / 0

    with pytest.raises(MethodError, match="divider failed"):
        merged(Divider())


def test_overflow_of_the_output_dtype_is_an_error():
    @implements(record("sum"))
    class Sum(TensorMethod):
        def merge(self, group):
            return sum(group.models)

    models = [{"w": torch.tensor([6e4], dtype=torch.float16)}] * 2
    with pytest.raises(MethodError, match="overflow float16"):
        fuse(Sum(), models)
    assert fuse(Sum(), models, engine={"dtype": "float32"})["w"].item() == pytest.approx(2 * 59_988, abs=50)


def test_a_wrong_shape_or_an_exception_is_blamed_on_the_method_and_the_tensor():
    @implements(record("wrong"))
    class Wrong(TensorMethod):
        def merge(self, group):
            return group.models[0][:1].repeat(3)

    @implements(record("raiser"))
    class Raiser(TensorMethod):
        def merge(self, group):
            raise KeyError("oops")

    for method in (Wrong(), Raiser()):
        with pytest.raises(MethodError, match=f"{method.record.name} failed") as caught:
            merged(method)
        assert "big" in str(caught.value)


def test_integers_that_differ_need_a_rule():
    models = {"a": {"n": torch.tensor([3, 1])}, "b": {"n": torch.tensor([2, 5])}}
    base = {"n": torch.tensor([0, 0])}
    with pytest.raises(IncompatibleModels, match="n differs"):
        fuse(Mean(), models, base=base)
    for rule, expected in (("base", [0, 0]), ("first", [3, 1]), ("max", [3, 5])):
        assert fuse(Mean(), models, base=base, engine={"integers": rule})["n"].tolist() == expected


def test_all_integers_that_differ_are_found_before_anything_is_merged():
    from fusionbench_core import ModelPool, PooledModel
    from fusionbench_core.engine.plan import make_plan

    states = {
        "a": {
            "w": torch.ones(2),
            "n": torch.tensor([3, 1]),
            "mask": torch.tensor([True]),
            "same": torch.tensor(7),
        },
        "b": {
            "w": torch.ones(2),
            "n": torch.tensor([2, 5]),
            "mask": torch.tensor([False]),
            "same": torch.tensor(7),
        },
    }
    pool = ModelPool({name: PooledModel(name, content=state) for name, state in states.items()})
    with pytest.raises(IncompatibleModels, match="2 integer tensors differ") as caught:
        make_plan(Mean(), pool)
    assert "int64 tensor n: b" in str(caught.value)
    assert "bool tensor mask: b" in str(caught.value)
    assert "same" not in str(caught.value)


def test_a_survey_does_not_mind_integers_that_differ():
    from fusionbench_core import ModelPool, PooledModel, Survey, run_survey

    class Count(Survey):
        def observe(self, group):
            return group.models[0].numel()

        def advance(self, total):
            return total

    base, model = ({"w": torch.ones(3), "n": torch.tensor(value)} for value in (1, 2))
    pool = ModelPool({"a": PooledModel("a", content=model)}, PooledModel("_base_", content=base))
    assert run_survey(Count(), pool) == 3


def test_large_integers_that_differ_are_found_while_merging():
    models = {name: {"n": torch.full((70_000,), value)} for name, value in (("a", 1), ("b", 2))}
    with pytest.raises(IncompatibleModels, match="n differs") as caught:
        fuse(Mean(), models)
    assert caught.value.where["models"] == "b"


def test_every_mismatch_is_reported_at_once():
    a = {"x": torch.zeros(2), "y": torch.zeros(3), "embed.weight": torch.zeros(5, 2)}
    b = {"x": torch.zeros(4), "z": torch.zeros(1), "embed.weight": torch.zeros(6, 2)}
    with pytest.raises(IncompatibleModels) as caught:
        fuse(Mean(), {"a": a, "b": b})
    text = str(caught.value)
    assert "4 tensors differ" in text
    for fact in ("x: [2] expected, [4] in b", "y: missing in b", "z: not in a", "vocabular"):
        assert fact in text


def test_scope_and_heads_leave_tensors_alone():
    models = {s: {"trunk": torch.tensor([float(i)]), "head": torch.ones(i)} for i, s in enumerate("ab", 2)}
    base = {"trunk": torch.tensor([0.0]), "head": torch.zeros(7)}
    result = fuse(Mean(), models, base=base, heads=["head*"])
    assert result["trunk"].item() == 2.5
    assert torch.equal(result["head"], torch.zeros(7))
    pair = {"a": state(1), "b": state(2)}
    scoped = fuse(Mean(), pair, base=state(9), scope={"exclude": ["big"]})
    assert torch.equal(scoped["big"], state(9)["big"])
    assert not torch.equal(scoped["vector"], state(9)["vector"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"scope": {"exlude": ["big"]}}, "did you mean 'exclude'"),
        ({"scope": ["big"]}, "scope"),
        ({"engine": {"thread": 1}}, "did you mean 'threads'"),
    ],
)
def test_sections_that_are_wrong_are_refused_in_words(arguments, said):
    with pytest.raises(ConfigError) as caught:
        fuse(Mean(), {"a": state(1), "b": state(2)}, **arguments)
    assert said in str(caught.value)


def test_tied_tensors_are_merged_once_and_stay_tied():
    def tied(value: float) -> dict:
        shared = torch.full((3, 2), value)
        return {"embed": shared, "head": shared}

    result = fuse(Mean(), [tied(1.0), tied(2.0)])
    assert result["embed"].data_ptr() == result["head"].data_ptr()
    assert torch.equal(result["head"], torch.full((3, 2), 1.5))


def test_capabilities_are_checked_before_anything_is_read():
    with pytest.raises(MissingCapability, match="needs a base model"):
        fuse(Arithmetic(), [state(1)])
    with pytest.raises(MissingCapability, match="no models"):
        fuse(Arithmetic(), {}, base=state(1))
    with pytest.raises(ConfigError, match="different kinds"):
        fuse(Mean(), [state(1), torch.nn.Linear(1, 1)])


def test_modules_in_modules_out():
    a, b = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    with torch.no_grad():
        b.weight.fill_(3.0)
    result = fuse(Mean(), {"a": a, "b": b})
    assert isinstance(result, torch.nn.BatchNorm1d)
    assert torch.equal(result.weight, torch.full((3,), 2.0))
    assert torch.equal(a.weight, torch.ones(3))


def test_sharded_and_plain_files_give_the_bits_of_memory(tmp_path):
    for seed in (1, 2, 9):
        write_safetensors(
            tmp_path / f"{seed}.safetensors", {k: v.contiguous() for k, v in state(seed).items()}
        )
    opened = {name: open_checkpoint(tmp_path / f"{name}.safetensors") for name in "129"}
    from_files = fuse(Arithmetic(), {"m1": opened["1"], "m2": opened["2"]}, base=opened["9"])
    assert same(from_files, merged(Arithmetic(), (1, 2)))


def test_a_memory_budget_that_is_too_small_is_refused_with_what_is_needed():
    from toy_methods import Whole

    from fusionbench_core.errors import InsufficientResources

    with pytest.raises(InsufficientResources, match="memory budget") as caught:
        merged(Whole(), engine={"memory_budget": "1MB"})
    needed = int(caught.value.fix.split("memory_budget to ")[1].split("MB")[0])
    merged(Whole(), engine={"memory_budget": f"{needed}MB"})


def test_random_numbers_do_not_hang_on_the_default_dtype():
    from fusionbench_core.randomness import uniform_block

    plain = uniform_block(0, "m", "t", 0, 99)
    try:
        torch.set_default_dtype(torch.float64)
        assert torch.equal(uniform_block(0, "m", "t", 0, 99), plain)
    finally:
        torch.set_default_dtype(torch.float32)
