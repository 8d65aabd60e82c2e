"""Interpolations and averages that look at angles, against formulas in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from fb_merging.averages.karcher import Karcher
from fb_merging.averages.model_stock import ModelStock
from fb_merging.averages.multislerp import MultiSlerp
from fb_merging.averages.nuslerp import NuSlerp
from fb_merging.averages.passthrough import Passthrough
from pydantic import ValidationError

from fusionbench_core import ConfigError, Law, MissingCapability, fuse

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def apart(zoo, dtype, count):
    """Models that do not lie close to each other: name -> state dict."""
    return {f"model{i}": zoo(dtype, count=1, seed=i)[0]["model0"] for i in range(count)}


def tensorwise(models, formula):
    """`formula` of the float64 tensors of each name; other dtypes from the first model."""
    first = next(iter(models.values()))
    return {
        name: formula(*(state[name].double() for state in models.values())) if t.is_floating_point() else t
        for name, t in first.items()
    }


def arc(a, b, t):
    norms = float(a.norm() * b.norm())
    cosine = float((a * b).sum()) / norms if norms else 1.0
    if abs(cosine) > 0.999999:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


def by_vector(a, b, t, dim):
    if a.dim() < 2 or not a.numel():
        return arc(a, b, t)
    pairs = zip(a.movedim(dim, -1).reshape(-1, a.shape[dim]), b.movedim(dim, -1).reshape(-1, a.shape[dim]))
    shape = a.movedim(dim, -1).shape
    return torch.stack([arc(x, y, t) for x, y in pairs]).view(shape).movedim(-1, dim)


@DTYPES
@pytest.mark.parametrize("t", [0.0, 0.25, 1.0, 1.5])
def test_linear_interpolation_follows_the_line_and_beyond(zoo, assert_near, dtype, t):
    models = apart(zoo, dtype, 2)
    found = fuse("linear_interpolation", models, t=t)
    assert_near(found, tensorwise(models, lambda a, b: (1 - t) * a + t * b), list(models.values()))


@DTYPES
@pytest.mark.parametrize(("vectors", "dim"), [("tensor", None), ("rows", -1), ("columns", 0)])
def test_nuslerp_follows_the_formula(zoo, assert_near, dtype, vectors, dim):
    models = apart(zoo, dtype, 2)
    found = fuse("nuslerp", models, weights=[3, 1], vectors=vectors)

    def formula(a, b):
        return arc(a, b, 0.25) if dim is None else by_vector(a, b, 0.25, dim)

    assert_near(found, tensorwise(models, formula), list(models.values()))


@pytest.mark.parametrize("name", ["nuslerp", "multislerp", "karcher"])
def test_task_vectors_are_averaged_around_the_base(zoo, assert_near, name):
    models, base = zoo(torch.float64, count=2)
    found = fuse(name, models, base, space="task_vectors")
    floats = {n for n, t in base.items() if t.is_floating_point()}
    deltas = {m: {n: state[n] - base[n] for n in floats} for m, state in models.items()}
    moved = fuse(name, deltas)
    expected = {n: base[n] + moved[n] if n in floats else base[n] for n in base}
    assert_near(found, expected, [base, *models.values()])
    with pytest.raises(MissingCapability, match="base"):
        fuse(name, models, space="task_vectors")


def tangent_mean(*tensors, weights):
    """Mean direction, then one step along the mean tangent, as the blog post and mergekit describe it."""
    lengths = [float(x.norm()) for x in tensors]
    units = [x / n if n else 0 * x for x, n in zip(tensors, lengths)]
    mean = sum(w * u for w, u in zip(weights, units))
    if float(mean.norm()) < 1e-8:
        return sum(w * x for w, x in zip(weights, tensors))
    mean = mean / mean.norm()
    tangents = [u - (u * mean).sum() * mean for u in units]
    step = sum(w * v for w, v in zip(weights, tangents))
    size = float(step.norm()) + 1e-300
    return (mean * math.cos(size) + step * (math.sin(size) / size)) * sum(
        w * n for w, n in zip(weights, lengths)
    )


@DTYPES
def test_multislerp_follows_the_formula(zoo, assert_near, dtype):
    models = apart(zoo, dtype, 4)
    found = fuse("multislerp", models, weights=[1, 2, 3, 2])
    expected = tensorwise(models, lambda *x: tangent_mean(*x, weights=[1 / 8, 2 / 8, 3 / 8, 2 / 8]))
    assert_near(found, expected, list(models.values()))


def iterated(*tensors, weights, steps=200):
    """Karcher mean by walking on whole vectors."""
    lengths = [float(x.norm()) for x in tensors]
    units = [(w, x / n) for x, n, w in zip(tensors, lengths, weights) if n]
    if not units:
        return 0 * tensors[0]
    mean = sum(w * u for w, u in units)
    if float(mean.norm()) < 1e-8:
        return sum(w * x for w, x in zip(weights, tensors))
    mean = mean / mean.norm()
    total = sum(w for w, _ in units)
    for _ in range(steps):
        step = 0 * mean
        for w, u in units:
            angle = math.acos(max(-1.0, min(1.0, float((mean * u).sum()))))
            if angle > 1e-9 and math.sin(angle) > 1e-9:
                step = step + w / total * angle / math.sin(angle) * (u - math.cos(angle) * mean)
        size = float(step.norm())
        if size < 1e-13:
            break
        mean = math.cos(size) * mean + math.sin(size) / size * step
        mean = mean / mean.norm()
    return mean * sum(w * n for w, n in zip(weights, lengths))


@DTYPES
def test_karcher_follows_the_formula(zoo, assert_near, dtype):
    models = apart(zoo, dtype, 3)
    # One-entry tensors of several signs are at angles 0 and pi, where the mean need not be unique.
    models = {m: {n: t.abs() if t.numel() == 1 else t for n, t in s.items()} for m, s in models.items()}
    found = fuse(
        "karcher", models, weights={"model0": 1, "model1": 1, "model2": 2}, max_iter=200, tolerance=1e-12
    )
    expected = tensorwise(models, lambda *x: iterated(*x, weights=[0.25, 0.25, 0.5]))
    assert_near(found, expected, list(models.values()))


def test_ten_steps_come_close_to_the_karcher_mean(zoo):
    models = apart(zoo, torch.float64, 5)
    few, many = fuse("karcher", models), fuse("karcher", models, max_iter=500, tolerance=1e-14)
    for name in ("matrix", "conv", "transposed"):
        assert float((few[name] - many[name]).norm()) < 1e-2 * float(many[name].norm())


def test_the_karcher_mean_of_two_models_of_one_length_is_slerp_at_one_half():
    a, b = {"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([5.0, 0.0])}
    assert fuse("karcher", [a, b])["w"].tolist() == pytest.approx(fuse("slerp", [a, b])["w"].tolist())


@pytest.mark.parametrize("name", ["multislerp", "karcher"])
def test_directions_that_cancel_are_averaged_linearly(name):
    models = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([-2.0, -4.0])}]
    assert fuse(name, models)["w"].tolist() == [-0.5, -1.0]
    round_trip = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -3.0]]
    found = fuse(name, [{"w": torch.tensor(x)} for x in round_trip])["w"]
    assert found.tolist() == pytest.approx([0.0, -0.5])


@pytest.mark.parametrize("name", ["multislerp", "karcher"])
def test_zero_tensors_count_for_the_length_alone(name):
    models = [{"w": torch.tensor([3.0, 4.0])}, {"w": torch.zeros(2)}]
    assert fuse(name, models)["w"].tolist() == pytest.approx([1.5, 2.0])
    assert fuse(name, [{"w": torch.zeros(2)}] * 3)["w"].tolist() == [0.0, 0.0]


def stock(base, *tensors, extrapolate=False):
    deltas = [x - base for x in tensors]
    pairs = []
    for a, b in itertools.combinations(deltas, 2):
        norms = float(a.norm() * b.norm())
        pairs.append(float((a * b).sum()) / norms if norms else 0.0)
    cosine, n = sum(pairs) / len(pairs), len(tensors)
    ratio = n * cosine / (1 + (n - 1) * cosine) if 1 + (n - 1) * cosine > 1e-6 else 0.0
    if not extrapolate:
        ratio = min(max(ratio, 0.0), 1.0)
    return ratio * sum(tensors) / n + (1 - ratio) * base


def related(zoo, dtype, count=3):
    """Models whose task vectors have something in common."""
    models, base = zoo(dtype, count=count)
    common = zoo(torch.float64, count=1, seed=9)[0]["model0"]
    for state in models.values():
        for name, tensor in state.items():
            if tensor.is_floating_point() and name != "frozen":
                state[name] = (tensor.double() + 0.1 * common[name]).to(dtype)
    return models, base


@DTYPES
@pytest.mark.parametrize("extrapolate", [False, True])
def test_model_stock_follows_the_formula(zoo, assert_near, dtype, extrapolate):
    models, base = related(zoo, dtype)
    found = fuse("model_stock", models, base, extrapolate=extrapolate)
    expected = tensorwise({"base": base, **models}, lambda *x: stock(*x, extrapolate=extrapolate))
    inputs = [base, *models.values()]
    if extrapolate:
        # Ratios far below 0 are ill-conditioned in the smallest tensors.
        found, expected = (
            {**each, "scalar": base["scalar"], "one": base["one"]} for each in (found, expected)
        )
    assert_near(found, expected, inputs)
    assert not torch.equal(found["matrix"], base["matrix"])


@DTYPES
def test_model_stock_takes_an_angle_for_each_row(zoo, assert_near, dtype):
    models, base = related(zoo, dtype)
    found = fuse("model_stock", models, base, granularity="row")

    def formula(*tensors):
        if tensors[0].dim() < 2 or not tensors[0].numel():
            return stock(*tensors)
        return torch.stack([stock(*rows) for rows in zip(*tensors)])

    assert_near(found, tensorwise({"base": base, **models}, formula), [base, *models.values()])
    assert ModelStock(granularity="row").capabilities.locality == "row"


def test_model_stock_of_equal_models_is_that_model_and_of_opposite_ones_the_base():
    base = {"w": torch.tensor([1.0, 1.0])}
    one, other = {"w": torch.tensor([2.0, 3.0])}, {"w": torch.tensor([0.0, -1.0])}
    assert fuse("model_stock", [one, one, one], base)["w"].tolist() == pytest.approx([2.0, 3.0])
    for extrapolate in (False, True):
        assert fuse("model_stock", [one, other], base, extrapolate=extrapolate)["w"].tolist() == [1.0, 1.0]


def test_model_stock_needs_two_models(zoo):
    models, base = zoo(torch.float32, count=1)
    with pytest.raises(MissingCapability):
        fuse("model_stock", models, base)


def test_passthrough_copies_or_scales_one_model(zoo):
    models, _ = zoo(torch.bfloat16, count=1)
    same, half = fuse("passthrough", models), fuse("passthrough", models, scale=0.5)
    for name, tensor in models["model0"].items():
        assert torch.equal(same[name], tensor)
        assert torch.equal(half[name], tensor * 0.5 if tensor.is_floating_point() else tensor)
    assert Passthrough(scale=0.5).capabilities.laws == {Law.PERMUTATION, Law.SCALE}


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (NuSlerp, {"weights": (1, -1)}),
        (NuSlerp, {"weights": 0}),
        (MultiSlerp, {"weights": {"a": 0.0, "b": 0.0}}),
        (Karcher, {"weights": (2, -1)}),
        (Karcher, {"max_iter": 0}),
        (Karcher, {"tolerance": 0}),
    ],
)
def test_weights_that_cannot_be_used_are_refused(method, parameters):
    with pytest.raises(ValidationError):
        method(**parameters)


def test_weights_must_fit_the_models(zoo):
    models = apart(zoo, torch.float32, 2)
    with pytest.raises(ConfigError):
        fuse("multislerp", models, weights=[1, 2, 3])
    assert Law.PERMUTATION not in MultiSlerp(weights=(1, 2)).capabilities.laws
