from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.continual.opcm import Opcm, outside
from pydantic import ValidationError

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def project(merged, delta, alpha):
    """The authors' projection, with the full bases of an SVD of full rank."""
    u, s, vh = np.linalg.svd(merged, full_matrices=True)
    split = int(np.argmax(np.cumsum(s) / s.sum() > alpha)) if s.sum() else 0
    inside = u.T @ delta @ vh.T
    np.fill_diagonal(inside, 0)
    inside[:split, :split] = 0
    return u @ inside @ vh


def naive_opcm(models, base, alpha):
    """The algorithm with its scaling after each model, over whole models in float64; also its last λ."""
    names = [name for name, tensor in base.items() if tensor.is_floating_point()]
    work = torch.promote_types(base["matrix"].dtype, torch.float32)

    def task_vector(model):
        return {n: (model[n].to(work) - base[n].to(work)).double().numpy() for n in names}

    def norm(vector):
        return np.sqrt(sum((part**2).sum() for part in vector.values()))

    first, *others = [task_vector(model) for model in models.values()]
    merged, norms, scaling = first, [norm(first)], 1.0
    for vector in others:
        norms.append(norm(vector))
        total = {}
        for n in names:
            flat = vector[n].ndim != 2 or not vector[n].size or not merged[n].any()
            total[n] = scaling * merged[n] + (vector[n] if flat else project(merged[n], vector[n], alpha))
        scaling = norm(total) / np.mean(norms)
        merged = {n: part / scaling for n, part in total.items()}
    state = {n: base[n].double() + torch.as_tensor(merged[n]) if n in names else base[n] for n in base}
    return state, scaling


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_opcm_follows_the_algorithm(zoo, assert_near, dtype, alpha):
    models, base = zoo(dtype, count=4)
    merged = fuse("opcm", models, base, alpha=alpha)
    assert_near(merged, naive_opcm(models, base, alpha)[0], [base, *models.values()])


def test_models_are_added_to_an_earlier_result(zoo, assert_near):
    models, base = zoo(torch.float64, count=4)
    names = list(models)
    earlier = {name: models[name] for name in names[:2]}
    _, scaling = naive_opcm(earlier, base, 0.5)
    rest = {"earlier": fuse("opcm", earlier, base), **{name: models[name] for name in names[2:]}}
    continued = fuse("opcm", rest, base, merged_models=2, merged_scaling=scaling)
    assert_near(continued, fuse("opcm", models, base), [base, *models.values()])


def test_the_order_of_the_pool_counts(zoo):
    models, base = zoo(torch.float64, count=2)
    merged = fuse("opcm", models, base)
    other = fuse("opcm", dict(reversed(models.items())), base)
    assert not torch.allclose(merged["matrix"], other["matrix"])


def test_the_result_is_as_far_from_the_base_as_the_models_are_on_average(zoo):
    models, base = zoo(torch.float64, count=3)

    def distance(model):
        return (
            sum(float((model[n] - base[n]).square().sum()) for n in base if n not in ("counter", "flag"))
            ** 0.5
        )

    expected = sum(distance(model) for model in models.values()) / 3
    assert distance(fuse("opcm", models, base)) == pytest.approx(expected)


def test_what_is_left_is_orthogonal_to_all_that_is_merged():
    generator = torch.Generator().manual_seed(0)
    merged, delta = torch.randn(2, 6, 4, generator=generator, dtype=torch.float64)
    for alpha in (0.0, 0.5, 1.0):
        left = outside(merged, delta, alpha)
        assert float((left * merged).sum()) == pytest.approx(0, abs=1e-12)
    # With α = 1 nothing of the update stays inside of the space.
    u, _, vh = torch.linalg.svd(merged, full_matrices=False)
    torch.testing.assert_close(
        u.T @ outside(merged, delta, 1.0) @ vh.T, torch.zeros(4, 4, dtype=torch.float64)
    )


def test_nothing_is_taken_where_nothing_is_merged():
    delta = torch.arange(6.0, dtype=torch.float64).view(2, 3)
    assert torch.equal(outside(torch.zeros(2, 3), delta, 0.5), delta)


@pytest.mark.parametrize(
    "parameters", [{"alpha": 1.1}, {"merged_models": 0}, {"merged_scaling": 1.4}, {"merged_scaling": -1}]
)
def test_wrong_parameters_are_refused(parameters):
    with pytest.raises(ValidationError):
        Opcm(**parameters)
