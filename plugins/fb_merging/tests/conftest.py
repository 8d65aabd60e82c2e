"""A small zoo of models whose tensors have awkward shapes, dtypes and layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest
import torch
from torch import Tensor

from fusionbench_core import TensorGroup

State = dict[str, Tensor]
Zoo = Callable[..., tuple[dict[str, State], State]]

SHAPES = {"matrix": (7, 5), "bias": (5,), "conv": (2, 3, 3, 3), "scalar": (), "one": (1,), "empty": (0, 3)}


@pytest.fixture
def zoo() -> Zoo:
    """`zoo(dtype, count=3, seed=0)`: named models and their base.

    `frozen` is equal in all of them, `transposed` is not contiguous, `counter` and `flag` are no floats.
    """

    def make(dtype: torch.dtype, count: int = 3, seed: int = 0) -> tuple[dict[str, State], State]:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        base = {name: draw(*shape) for name, shape in SHAPES.items()}
        base |= {"frozen": draw(4, 4), "transposed": draw(6, 3)}
        models = {
            f"model{index}": {
                name: tensor + (0 if name == "frozen" else 0.1 * draw(*tensor.shape))
                for name, tensor in base.items()
            }
            for index in range(count)
        }

        def finish(state: State) -> State:
            result = {name: tensor.to(dtype) for name, tensor in state.items()}
            result["transposed"] = result["transposed"].T.contiguous().T
            return {**result, "counter": torch.tensor(3), "flag": torch.tensor([True, False])}

        return {name: finish(state) for name, state in models.items()}, finish(base)

    return make


@pytest.fixture
def group() -> Callable[..., TensorGroup]:
    """`group(models, base)`: the group that a whole-tensor method would see."""

    def make(models: Sequence[Tensor], base: Tensor | None = None, **more: object) -> TensorGroup:
        return TensorGroup(
            name="weight",
            shape=tuple(models[0].shape),
            start=0,
            names=[f"model{index}" for index in range(len(models))],
            models=[model.clone() for model in models],
            base=None if base is None else base.clone(),
            seed=0,
            **more,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture
def assert_near() -> Callable[..., None]:
    """`assert_near(state, expected, inputs)`: equal up to rounding in the dtype of the result.

    The bound is 4 eps max|inputs| (1 + sqrt(number of inputs)), compared in float64.
    """

    def check(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], inputs: Sequence[State]) -> None:
        assert list(state) == list(expected)
        for name, wanted in expected.items():
            found = state[name]
            assert found.shape == wanted.shape
            if not found.is_floating_point():
                assert torch.equal(found, wanted)
                continue
            largest = max(
                (float(each[name].abs().max()) for each in inputs if each[name].numel()), default=0.0
            )
            bound = 4 * torch.finfo(found.dtype).eps * largest * (1 + len(inputs) ** 0.5)
            apart = (found.double() - wanted.double()).abs().flatten().tolist()
            assert max(apart, default=0.0) <= bound, name

    return check


@pytest.fixture
def matrix_reference() -> Callable[..., State]:
    """`matrix_reference(models, base, combine, factor=1.0)`: what methods for matrices give, in float64.

    `combine` gets the task matrices as float64 numpy arrays; tensors that are no matrix get their mean.
    """

    def make(models: Mapping[str, State], base: State, combine: Callable, factor: float = 1.0) -> State:
        result = dict(base)
        for name, tensor in base.items():
            if not tensor.is_floating_point():
                continue
            # What the engine computes on: differences in fp32, unless the model is in fp64.
            work = torch.promote_types(tensor.dtype, torch.float32)
            deltas = [(model[name].to(work) - tensor.to(work)).double() for model in models.values()]
            if tensor.ndim == 2 and tensor.numel():
                update = torch.from_numpy(combine([delta.numpy() for delta in deltas]))
            else:
                update = torch.stack(deltas).mean(0)
            result[name] = tensor.double() + factor * update
        return result

    return make
