from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.data_driven.activations import Activations
from fb_merging.data_driven.gram import Gram
from torch import nn

from fusionbench_core import MissingCapability, fuse
from fusionbench_core.testing.zoo import case

LM = case("tied_lm", count=1, samples=12)
(NAME, MODEL), (TASK,) = next(iter(LM.models.items())), LM.tasks.values()


class Headed(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.trunk(**inputs)


def test_activations_are_the_diagonal_of_the_gram_matrix():
    batches = list(TASK.batches("train", labelled=False, batch_size=5))
    grams = Gram().collect(Headed(MODEL).eval(), batches)
    found = Activations().collect(Headed(MODEL).eval(), batches)
    assert found.keys() == grams.keys()
    for name, squares in found.items():
        torch.testing.assert_close(squares, grams[name].diagonal(), rtol=1e-5, atol=1e-7)


def inputs_of_mlp(model: nn.Module, x: np.ndarray) -> dict[str, np.ndarray]:
    """What goes into each layer of the zoo's network, in float64."""
    seen = {}
    for layer in ("layers.0", "layers.1"):
        seen[f"{layer}.weight"] = x
        weight, bias = (model.state_dict()[f"{layer}.{key}"].double().numpy() for key in ("weight", "bias"))
        x = np.maximum(x @ weight.T + bias, 0)
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "settings", [{"density": 0.4}, {"n": 2, "m": 4}, {"density": 0.3, "window": "tensor"}]
)
def test_entries_stay_whose_magnitude_times_input_is_largest(dtype, settings):
    small = case("mlp", count=1, samples=24, dtype=dtype)
    (name, model), (task,) = next(iter(small.models.items())), small.tasks.values()
    found = fuse("wanda_pruning", {name: model}, tasks=small.tasks, samples=24, **settings).state_dict()
    (batch,) = task.batches("train", labelled=False)
    wide = nn.Module.to(model, torch.float32)
    seen = inputs_of_mlp(wide, batch.inputs["x"].double().numpy())
    for key, x in seen.items():
        weight = model.state_dict()[key].double().numpy()
        score = np.abs(weight) * np.sqrt((x**2).sum(0))
        expected = np.zeros_like(weight)
        if settings.get("window"):
            kept = np.argsort(-score.ravel())[: round(0.3 * score.size)]
            expected.ravel()[kept] = weight.ravel()[kept]
        else:
            width, count = (4, 2) if "n" in settings else (score.shape[1], round(0.4 * score.shape[1]))
            for row in range(len(score)):
                for start in range(0, score.shape[1], width):
                    part = start + np.argsort(-score[row, start : start + width])[:count]
                    expected[row, part] = weight[row, part]
        assert np.array_equal(found[key].double().numpy(), expected)
    for key, tensor in model.state_dict().items():
        if key not in seen:
            assert torch.equal(found[key].float(), tensor.float())


def test_embeddings_stay_and_what_is_excluded():
    pruned = fuse("wanda_pruning", {NAME: MODEL}, tasks=LM.tasks, exclude=("block.*",), samples=8)
    assert all(torch.equal(tensor, pruned.state_dict()[name]) for name, tensor in MODEL.state_dict().items())
    pruned = fuse("wanda_pruning", {NAME: MODEL}, tasks=LM.tasks, samples=8).state_dict()
    assert int((pruned["block.weight"] == 0).sum()) == 32


def test_it_needs_data():
    with pytest.raises(MissingCapability, match="data"):
        fuse("wanda_pruning", {NAME: MODEL})
