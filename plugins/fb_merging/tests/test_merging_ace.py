from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fb_merging.spectral.ace_merging import AceMerging, heterogeneity
from pydantic import ValidationError

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def naive_ace(deltas, epsilon=1e-2, threshold=0.3, fraction=0.3):
    """The authors' procedure with numpy."""
    deltas = [delta for delta in deltas if delta.any()]
    if not deltas:
        return np.zeros(())
    n = deltas[0].shape[1]
    norms = np.array([(delta**2).sum() for delta in deltas])
    logs = np.log(norms)
    unlike = len(deltas) > 1 and logs.var(ddof=1) / logs.mean() ** 2 > threshold
    centered = [delta - delta.mean(axis=0, keepdims=True) for delta in deltas]
    sigmas = [delta.T @ delta for delta in centered]
    scales = [np.trace(sigma) if unlike else 1.0 for sigma in sigmas]
    sigmas = [sigma / scale for sigma, scale in zip(sigmas, scales)]
    ridged = [sigma + epsilon / scale * np.eye(n) for sigma, scale in zip(sigmas, scales)]
    prior = np.sum(sigmas, axis=0).mean(axis=0, keepdims=True) / (norms.mean() if unlike else 1.0)
    merged = sum(d @ r for d, r in zip(centered, ridged)) @ np.linalg.inv(sum(ridged) + prior)
    if not unlike:
        return merged
    mean = sum(ridged) / len(ridged)
    u, s, vh = np.linalg.svd(
        merged + sum(d @ (sigma - mean) for d, sigma in zip(deltas, sigmas)), full_matrices=False
    )
    k = int(fraction * len(s))
    return merged + (s[:k].mean() * u[:, :k] @ vh[:k] if k else 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ace_follows_the_formula(zoo, matrix_reference, assert_near, dtype):
    models, base = zoo(dtype)
    merged = fuse("ace_merging", models, base, scaling_factor=0.5)
    assert_near(merged, matrix_reference(models, base, naive_ace, 0.5), [base, *models.values()])


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (2, 9)])
def test_unlike_tasks_are_normalised_and_refined(shape, fraction):
    generator = torch.Generator().manual_seed(0)
    base = {"w": torch.zeros(shape, dtype=torch.float64)}
    draws = [
        torch.randn(shape, generator=generator, dtype=torch.float64) * scale for scale in (0.3, 1.0, 9.0)
    ]
    merged = fuse("ace_merging", [{"w": draw} for draw in draws], base, refined_fraction=fraction)["w"]
    deltas = [draw.numpy() for draw in draws]
    expected = torch.from_numpy(naive_ace(deltas, fraction=fraction))
    torch.testing.assert_close(merged, expected, rtol=1e-10, atol=1e-12)
    alike = torch.from_numpy(naive_ace(deltas, threshold=100.0))
    assert not torch.allclose(merged, alike, rtol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 9.0])
def test_matrices_with_many_columns_are_merged_among_their_rows(scale):
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(4, 40, generator=generator, dtype=torch.float64) * size for size in (1.0, scale)]
    merged = fuse("ace_merging", [{"w": draw} for draw in draws], {"w": torch.zeros(4, 40).double()})["w"]
    expected = torch.from_numpy(naive_ace([draw.numpy() for draw in draws]))
    torch.testing.assert_close(merged, expected, rtol=1e-7, atol=1e-9)


def test_tasks_of_like_size_are_alike_and_others_are_not():
    assert heterogeneity([2.0]) == 0.0
    assert heterogeneity([2.0, 2.0, 2.0]) == pytest.approx(0.0)
    # Logarithms 1 and 3: variance 2, mean 2.
    assert heterogeneity([math.e, math.e**3]) == pytest.approx(2 / 4)


def test_a_model_that_equals_the_base_is_not_heard():
    generator = torch.Generator().manual_seed(0)
    base, *tuned = ({"w": torch.randn(5, 4, generator=generator)} for _ in range(3))
    with_base, without = fuse("ace_merging", [*tuned, base], base), fuse("ace_merging", tuned, base)
    torch.testing.assert_close(with_base, without)


@pytest.mark.parametrize("parameters", [{"epsilon": 0}, {"refined_fraction": 1.5}])
def test_wrong_parameters_are_refused(parameters):
    with pytest.raises(ValidationError):
        AceMerging(**parameters)
