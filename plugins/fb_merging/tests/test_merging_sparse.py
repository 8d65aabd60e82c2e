"""Methods that make task vectors sparse, against formulas in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
from fb_merging.operations.combine import largest_magnitude, mean_of_active
from fb_merging.operations.sparsify import drop_at_random, keep_band, rank_probability
from fb_merging.task_vectors.breadcrumbs import Breadcrumbs
from fb_merging.task_vectors.dare_linear import DareLinear
from fb_merging.task_vectors.dare_ties import DareTies
from fb_merging.task_vectors.della import Della
from fb_merging.task_vectors.task_vector_merging import TaskVectorMerging
from fb_merging.task_vectors.ties_merging import TiesMerging
from pydantic import ValidationError

from fusionbench_core import ConfigError, Law, fuse
from fusionbench_core.randomness import uniform_block

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def task_vectors(models, base):
    """What the engine computes on, differences in fp32, as float64: model -> name -> tensor."""
    floats = [name for name, tensor in base.items() if tensor.is_floating_point()]
    return {
        model: {name: (state[name].float() - base[name].float()).double() for name in floats}
        for model, state in models.items()
    }


def drawn(model, name, delta, seed=0):
    return uniform_block(seed, model, name, 0, delta.numel()).double().view(delta.shape)


def dare(model, name, delta, density):
    return torch.where(drawn(model, name, delta) < density, delta / density, 0)


def ranks(vector):
    return vector.abs().argsort(stable=True).argsort(stable=True).double()


def magprune(model, name, delta, density, epsilon, by_row=True):
    """Row by row: rank, probability, draw, divide."""
    if delta.numel() == 0:
        return delta
    rows = delta.reshape(len(delta), -1) if by_row and delta.dim() > 1 else delta.reshape(1, -1)
    n = rows.shape[1]
    position = torch.stack(
        [ranks(row) / (n - 1) if n > 1 else torch.full((1,), 0.5).double() for row in rows]
    )
    chance = (density - epsilon + 2 * epsilon * position).view(delta.shape)
    return torch.where(drawn(model, name, delta) < chance.float(), delta / chance, 0)


def breadcrumbs(delta, density, gamma):
    """Sort by magnitude, cut off both ends."""
    n = delta.numel()
    if n == 0:
        return delta
    kept = max(1, round(density * n))
    top = min(round(gamma * n), n - kept)
    magnitudes = delta.flatten().abs().sort().values
    low, high = magnitudes[n - top - kept], magnitudes[n - top - 1]
    return torch.where((delta.abs() >= low) & (delta.abs() <= high), delta, 0)


def elected_mean(deltas, weights):
    stack = torch.stack([w * d for d, w in zip(deltas, weights)])
    sign = stack.sum(0).sign()
    shape = (-1,) + (1,) * (stack.dim() - 1)
    agreeing = ((stack.sign() == sign) & (stack != 0)).double()
    total = (agreeing * torch.tensor(weights, dtype=torch.float64).view(shape)).sum(0)
    return (stack * agreeing).sum(0) / torch.where(total == 0, 1, total)


def plain_sum(deltas, weights):
    return sum(w * d for d, w in zip(deltas, weights))


def merged(base, deltas, factor, combine, weights=None):
    """base + factor * combine(deltas), other dtypes from the base."""
    weights = weights or [1.0] * len(deltas)
    names = next(iter(deltas.values()))
    return {
        name: tensor.double() + factor * combine([delta[name] for delta in deltas.values()], weights)
        if name in names
        else tensor
        for name, tensor in base.items()
    }


def each(deltas, change):
    return {m: {n: change(m, n, d) for n, d in delta.items()} for m, delta in deltas.items()}


@DTYPES
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_dare_linear_follows_the_formula(zoo, assert_near, dtype, density):
    models, base = zoo(dtype)
    found = fuse("dare_linear", models, base, density=density)
    sparse = each(task_vectors(models, base), lambda m, n, d: dare(m, n, d, density))
    assert_near(found, merged(base, sparse, 0.3, plain_sum), [base, *models.values()])


@DTYPES
def test_dare_linear_takes_weights_and_densities_of_each_model(zoo, assert_near, dtype):
    models, base = zoo(dtype)
    densities, weights = {"model0": 0.9, "model1": 0.3, "model2": 0.5}, [0.5, -0.25, 1.0]
    found = fuse(
        "dare_linear", models, base, density=densities, weights=weights, normalize=True, scaling_factor=0.5
    )
    sparse = each(task_vectors(models, base), lambda m, n, d: dare(m, n, d, densities[m]))
    assert_near(found, merged(base, sparse, 0.5 / 1.25, plain_sum, weights), [base, *models.values()])


@DTYPES
def test_dare_simple_average_divides_by_the_number_of_models(zoo, assert_near, dtype):
    models, base = zoo(dtype)
    found = fuse("dare_simple_average", models, base, density=0.4)
    sparse = each(task_vectors(models, base), lambda m, n, d: dare(m, n, d, 0.4))
    assert_near(found, merged(base, sparse, 1 / 3, plain_sum), [base, *models.values()])


@DTYPES
@pytest.mark.parametrize("trim", [0.2, 1.0])
def test_dare_ties_trims_what_is_left_of_a_whole_model(zoo, assert_near, dtype, trim):
    models, base = zoo(dtype)
    found = fuse("dare_ties", models, base, density=0.5, trim_density=trim)
    sparse = each(task_vectors(models, base), lambda m, n, d: dare(m, n, d, 0.5))
    for delta in sparse.values():
        vector = torch.cat([tensor.flatten() for tensor in delta.values()]).abs()
        bound = vector.sort(descending=True).values[max(1, round(trim * len(vector))) - 1]
        for name in delta:
            delta[name] = torch.where(delta[name].abs() >= bound, delta[name], 0)
    assert_near(found, merged(base, sparse, 1.0, elected_mean), [base, *models.values()])


def test_dare_ties_trims_tensor_by_tensor_if_asked(zoo, assert_near):
    models, base = zoo(torch.float32)
    found = fuse("dare_ties", models, base, density=0.5, trim_density=0.4, trim="tensor")

    def trimmed(model, name, delta):
        dropped = dare(model, name, delta, 0.5)
        if delta.numel() == 0:
            return dropped
        kept = max(1, round(0.4 * delta.numel()))
        bound = dropped.abs().flatten().sort(descending=True).values[kept - 1]
        return torch.where(dropped.abs() >= bound, dropped, 0)

    sparse = each(task_vectors(models, base), trimmed)
    assert_near(found, merged(base, sparse, 1.0, elected_mean), [base, *models.values()])


@DTYPES
@pytest.mark.parametrize("window", ["row", "tensor"])
def test_della_follows_the_formula(zoo, assert_near, dtype, window):
    models, base = zoo(dtype)
    weights = [1.0, 0.5, 2.0]
    found = fuse("della", models, base, density=0.4, epsilon=0.2, window=window, weights=weights)
    sparse = each(
        task_vectors(models, base), lambda m, n, d: magprune(m, n, d, 0.4, 0.2, by_row=window == "row")
    )
    assert_near(found, merged(base, sparse, 1.0, elected_mean, weights), [base, *models.values()])


@DTYPES
def test_della_linear_follows_the_formula(zoo, assert_near, dtype):
    models, base = zoo(dtype)
    found = fuse("della_linear", models, base, density=0.7, epsilon=0.1)
    sparse = each(task_vectors(models, base), lambda m, n, d: magprune(m, n, d, 0.7, 0.1))
    assert_near(found, merged(base, sparse, 0.3, plain_sum), [base, *models.values()])


@DTYPES
@pytest.mark.parametrize(("density", "gamma"), [(0.143, 0.007), (0.5, 0.2), (0.9, 0.3), (1.0, 0.1)])
def test_breadcrumbs_follows_the_formula(zoo, assert_near, density, gamma, dtype):
    models, base = zoo(dtype)
    found = fuse("breadcrumbs", models, base, density=density, gamma=gamma)
    sparse = each(task_vectors(models, base), lambda m, n, d: breadcrumbs(d, density, gamma))
    assert_near(found, merged(base, sparse, 0.3, plain_sum), [base, *models.values()])


def test_breadcrumbs_ties_follows_the_formula(zoo, assert_near):
    models, base = zoo(torch.float32)
    found = fuse("breadcrumbs_ties", models, base, density=0.5, gamma=0.1)
    sparse = each(task_vectors(models, base), lambda m, n, d: breadcrumbs(d, 0.5, 0.1))
    assert_near(found, merged(base, sparse, 1.0, elected_mean), [base, *models.values()])


def test_ties_weighs_updates_before_the_election(zoo, assert_near):
    models, base = zoo(torch.float32)
    weights = [3.0, 0.0, 1.0]
    found = fuse("ties_merging", models, base, density=1, weights=weights)
    deltas = task_vectors(models, base)
    assert_near(found, merged(base, deltas, 1.0, elected_mean, weights), [base, *models.values()])


def test_a_negative_weight_turns_an_update_around():
    models = {"a": {"w": torch.tensor([1.0, -2.0])}}
    found = fuse("ties_merging", models, {"w": torch.zeros(2)}, density=1, weights=-1)
    assert found["w"].tolist() == [-1.0, 2.0]


@pytest.mark.parametrize(
    "method",
    [
        DareLinear(rescale="l1", density=0.3, scaling_factor=1),
        Della(rescale="l1", density=0.3, merge_func="sum"),
        Breadcrumbs(rescale="l1", density=0.3, scaling_factor=1),
        TiesMerging(rescale="l1", density=0.3, merge_func="sum"),
        TiesMerging(rescale="l1", density=0.3, merge_func="sum", trim="tensor"),
    ],
    ids=lambda method: type(method).__name__,
)
def test_rescaling_by_l1_keeps_the_norm_of_each_tensor(zoo, method):
    models, base = zoo(torch.float64, count=1)
    base = {name: torch.zeros_like(t) if t.is_floating_point() else t for name, t in base.items()}
    found = fuse(method, models, base)
    for name, tensor in models["model0"].items():
        if tensor.is_floating_point() and found[name].any():
            assert float(found[name].abs().sum()) == pytest.approx(float(tensor.abs().sum()), rel=1e-12)
            assert tensor.numel() < 10 or int((found[name] == 0).sum()) > 0
    assert method.capabilities.locality == "tensor"


def test_without_rescaling_kept_entries_stay(zoo):
    models, base = zoo(torch.float64, count=1)
    base = {name: torch.zeros_like(t) if t.is_floating_point() else t for name, t in base.items()}
    for method in (DareLinear(rescale="none", scaling_factor=1), Della(rescale="none")):
        found = fuse(method, models, base)
        for name, tensor in models["model0"].items():
            assert bool(((found[name] == tensor) | (found[name] == 0)).all())


def test_dropping_keeps_the_asked_fraction_and_the_expectation():
    ones = torch.ones(200_000)
    uniform = uniform_block(3, "model", "tensor", 0, len(ones))
    for density in (0.1, 0.9):
        kept = drop_at_random(ones, uniform, density, "probability")
        # Four standard deviations of a binomial.
        spread = 4 * (density * (1 - density) / len(ones)) ** 0.5
        assert float((kept != 0).double().mean()) == pytest.approx(density, abs=spread)
        assert float(kept.double().mean()) == pytest.approx(1, abs=spread / density)


def test_probabilities_rise_with_the_rank_within_a_row():
    delta = torch.tensor([[3.0, -1.0, 2.0, 0.0], [0.0, 0.0, -5.0, 1.0]], dtype=torch.float64)
    low, step = 0.5 - 0.3, 0.6 / 3
    wanted = [[low + step * r for r in row] for row in ([3, 1, 2, 0], [0, 1, 3, 2])]
    for found, row in zip(rank_probability(delta, 0.5, 0.3).tolist(), wanted):
        assert found == pytest.approx(row)


def test_a_band_by_hand():
    delta = torch.tensor([9.0, -8.0, 7.0, -6.0, 5.0, 4.0, 3.0, 2.0, -1.0, 0.0])
    assert keep_band(delta, 0.3, 0.2).tolist() == [0, 0, 7, -6, 5, 0, 0, 0, 0, 0]
    assert keep_band(delta, 0.9, 0.5).tolist() == [0, -8, 7, -6, 5, 4, 3, 2, -1, 0]
    assert keep_band(torch.ones(5), 0.4, 0.2).tolist() == [1] * 5
    assert keep_band(torch.ones(0), 0.4, 0.2).tolist() == []


def test_random_masks_go_by_name_and_not_by_order(zoo):
    models, base = zoo(torch.float32)
    for name in ("dare_linear", "dare_ties", "della"):
        one, other = fuse(name, models, base), fuse(name, dict(reversed(models.items())), base)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_cut_into_pieces_changes_no_bit():
    generator = torch.Generator().manual_seed(0)
    wide = {"w": torch.randn(300, 1000, generator=generator)}
    tall = {"w": wide["w"].clone()}
    base = {"w": torch.zeros(300, 1000)}
    flat = fuse("dare_linear", {"a": {"w": tall["w"].view(-1)}}, {"w": base["w"].view(-1)})
    assert torch.equal(fuse("dare_linear", {"a": wide}, base)["w"].view(-1), flat["w"])
    by_row = fuse("della", {"a": wide}, base)["w"]
    rows = drawn("a", "w", wide["w"])
    chance = torch.stack([0.45 + 0.1 * ranks(row) / 999 for row in wide["w"]])
    assert torch.equal(by_row != 0, rows < chance.float())


def test_steps_follow_one_another_and_thresholds_see_what_is_left(zoo, assert_near):
    models, base = zoo(torch.float32)
    method = TaskVectorMerging(
        sparsify=[{"name": "random", "density": 0.6}, {"name": "magnitude", "density": 0.3}, "magnitude"],
        combine={"name": "elect", "merge_func": "sum"},
        scaling_factor=0.7,
    )
    assert method.capabilities.surveys == 4
    assert method.capabilities.random
    sparse = each(task_vectors(models, base), lambda m, n, d: dare(m, n, d, 0.6))
    for density, delta in itertools.product((0.3, 0.2), sparse.values()):
        vector = torch.cat([tensor.flatten() for tensor in delta.values()]).abs()
        bound = vector.sort(descending=True).values[max(1, round(density * len(vector))) - 1]
        for name in delta:
            delta[name] = torch.where(delta[name].abs() >= bound, delta[name], 0)

    def elected_sum(deltas, weights):
        stack = torch.stack(deltas)
        return torch.where(stack.sign() == stack.sum(0).sign(), stack, 0).sum(0)

    assert_near(fuse(method, models, base), merged(base, sparse, 0.7, elected_sum), [base, *models.values()])


@pytest.mark.parametrize(
    ("named", "composed"),
    [
        ("task_arithmetic", {}),
        ("ties_merging", {"sparsify": "magnitude", "combine": "elect", "scaling_factor": 1.0}),
        ("dare_linear", {"sparsify": ["random"]}),
        ("breadcrumbs", {"sparsify": "breadcrumbs", "combine": {"name": "sum"}}),
        ("della", {"sparsify": "magprune", "combine": "elect", "scaling_factor": 1.0}),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_named_methods_are_compositions(zoo, named, composed):
    models, base = zoo(torch.float32)
    one, other = (
        fuse(named, models, base),
        fuse("task_vector_merging", models, base, **composed),
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_largest_magnitude_and_the_mean_of_active_entries():
    tensors = [torch.tensor([1.0, -2.0, 3.0, 0.0]), torch.tensor([-1.0, 1.0, 0.0, 0.0])]
    assert largest_magnitude(tensors).tolist() == [1.0, -2.0, 3.0, 0.0]
    assert mean_of_active(tensors).tolist() == [0.0, -0.5, 3.0, 0.0]
    assert mean_of_active([t * w for t, w in zip(tensors, (3, 1))], (3, 1)).tolist() == [0.5, -1.25, 3.0, 0.0]
    assert tensors[0].tolist() == [1.0, -2.0, 3.0, 0.0]


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (Della, {"density": 0.1, "epsilon": 0.2}),
        (Della, {"density": (0.5, 0.97), "epsilon": 0.05}),
        (Della, {"epsilon": -0.1}),
        (DareLinear, {"density": 0}),
        (DareLinear, {"density": {"a": 1.5}}),
        (DareLinear, {"rescale": True}),
        (DareTies, {"trim_density": 0}),
        (Breadcrumbs, {"gamma": 1}),
        (TaskVectorMerging, {"sparsify": "unknown"}),
        (TaskVectorMerging, {"sparsify": {"name": "random", "gamma": 0.1}}),
        (TaskVectorMerging, {"combine": "ties"}),
    ],
)
def test_parameters_that_cannot_work_are_refused(method, parameters):
    with pytest.raises(ValidationError):
        method(**parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {"density": [0.5, 0.5]},
        {"weights": {"model0": 1, "other": 1}},
        {"weights": [1, -1, 0], "normalize": True},
    ],
)
def test_settings_that_do_not_fit_the_models_are_refused_before_reading(zoo, parameters):
    models, base = zoo(torch.float32)
    with pytest.raises(ConfigError):
        fuse("dare_linear", models, base, **parameters)


def test_lists_make_the_order_of_the_models_meaningful():
    for method in (DareLinear(density=[0.1, 0.2]), Breadcrumbs(weights=[1, 2])):
        assert method.capabilities.ordered
        assert Law.PERMUTATION not in method.capabilities.laws
    assert not DareLinear(density={"a": 0.1}).capabilities.ordered
    assert hash(DareLinear(density={"a": 0.1, "b": 1})) == hash(DareLinear(density={"b": 1, "a": 0.1}))
