from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from fb_merging.spectral.orthomerge import cayley, cayley_inverse, procrustes

from fusionbench_core import fuse

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def naive(base, models, factor):
    """The authors' procedure with scipy, for weights with at least as many rows as columns."""
    eye = np.eye(base.shape[1])
    turns = []
    for model in models:
        rotation, _ = scipy.linalg.orthogonal_procrustes(base, model)
        turns.append(np.linalg.solve(rotation + eye, rotation - eye))
    total = sum(turns)
    if np.linalg.norm(total) == 0:
        turn = total
    else:
        turn = total / np.linalg.norm(total) * np.mean([np.linalg.norm(each) for each in turns])

    def rotation(skew):
        return np.linalg.solve(eye - skew, eye + skew)

    rest = sum(model - base @ rotation(each) for model, each in zip(models, turns))
    return base @ rotation(turn) + factor * rest


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factor", [0.2, 1.0])
def test_orthomerge_follows_the_authors_procedure(zoo, assert_near, dtype, factor):
    models, base = zoo(dtype)
    expected = dict(base)
    for name, tensor in base.items():
        if not tensor.is_floating_point():
            continue
        start, each = tensor.double().numpy(), [model[name].double().numpy() for model in models.values()]
        if tensor.ndim == 2 and tensor.numel() and name != "frozen":
            expected[name] = torch.from_numpy(naive(start, each, factor))
        else:
            expected[name] = torch.as_tensor(start + factor * sum(model - start for model in each))
    assert_near(fuse("orthomerge", models, base, scaling_factor=factor), expected, [base, *models.values()])


def turned(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def test_turns_of_the_plane_are_averaged_as_turns():
    base = {"w": torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)}
    models = [{"w": base["w"] @ turned(angle)} for angle in (0.2, 0.6)]
    # The Cayley transform of a turn by a is tan(a / 2).
    angle = 2 * math.atan((math.tan(0.1) + math.tan(0.3)) / 2)
    merged = fuse("orthomerge", models, base)["w"]
    torch.testing.assert_close(merged, base["w"] @ turned(angle), rtol=0, atol=1e-12)


def test_turns_that_cancel_leave_the_base():
    base = {"w": torch.eye(2, dtype=torch.float64)}
    models = [{"w": turned(angle)} for angle in (0.5, -0.5)]
    torch.testing.assert_close(fuse("orthomerge", models, base)["w"], base["w"], rtol=0, atol=1e-12)


def test_a_half_turn_stays_in_the_rest():
    base, model = {"w": torch.eye(3)}, {"w": torch.diag(torch.tensor([1.0, -1.0, -1.0]))}
    merged = fuse("orthomerge", [model], base, scaling_factor=0.5)["w"]
    torch.testing.assert_close(merged, torch.diag(torch.tensor([1.0, 0.0, 0.0])))


def test_weights_with_fewer_rows_than_columns_turn_no_more_than_they_must():
    source = torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([[math.cos(0.3), math.sin(0.3), 0.0, 0.0]], dtype=torch.float64)
    rotation = procrustes(source, target)
    wanted = torch.eye(4, dtype=torch.float64)
    wanted[:2, :2] = turned(-0.3)
    torch.testing.assert_close(rotation, wanted, rtol=0, atol=1e-12)


def test_the_cayley_transform_has_an_inverse():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    skew = matrix - matrix.T
    rotation = cayley(skew)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(cayley_inverse(rotation), skew, rtol=1e-9, atol=1e-9)


def test_excluded_matrices_are_added_up():
    base, models = {"embed": torch.eye(2)}, [{"embed": 2 * torch.eye(2)}, {"embed": 3 * torch.eye(2)}]
    merged = fuse("orthomerge", models, base, exclude=["emb*"], scaling_factor=0.5)["embed"]
    assert merged.tolist() == [[2.5, 0.0], [0.0, 2.5]]
