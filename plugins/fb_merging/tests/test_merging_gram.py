from __future__ import annotations

import pytest
import torch
from fb_merging.data_driven.gram import Gram
from torch import Tensor, nn

from fusionbench_core import Batch, TaskError


class Trunk(nn.Module):
    """Tokens `(n, tokens, 4)` to features `(n, 3)`; one layer is used twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.twice = nn.Linear(6, 6)
        self.pooled = nn.Linear(6, 3)
        self.unused = nn.Linear(2, 2)
        self.conv = nn.Conv1d(1, 1, 1)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        hidden = torch.relu(self.first(tokens))
        hidden = torch.relu(self.twice(hidden))
        hidden = torch.relu(self.twice(hidden))
        return self.pooled(self.attention(hidden, hidden, hidden)[0].mean(1))


class Model(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(3, 2)

    def forward(self, **inputs: Tensor) -> Tensor:
        return self.head(self.trunk(**inputs))


@pytest.fixture
def model() -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model(Trunk()).eval()


def make_batches(mask: bool, sizes=(3, 2)) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    batches = []
    for size in sizes:
        inputs = {"tokens": torch.randn(size, 5, 4, generator=generator)}
        if mask:
            lengths = torch.randint(1, 6, (size, 1), generator=generator)
            inputs["attention_mask"] = (torch.arange(5) < lengths).long()
        batches.append(Batch(inputs, None, torch.arange(size)))
    return batches


def normalised(rows: list[Tensor]) -> Tensor:
    stacked = torch.cat([row.reshape(-1, row.shape[-1]) for row in rows]).double()
    return stacked.T @ stacked / len(stacked)


@pytest.mark.parametrize("mask", [False, True])
def test_gram_is_the_mean_outer_product_of_the_inputs(model, mask):
    batches = make_batches(mask)
    found = Gram().collect(model, batches)
    rows: dict[str, list[Tensor]] = {"first": [], "twice": [], "pooled": []}
    with torch.no_grad():
        for batch in batches:
            tokens = batch.inputs["tokens"]
            kept = batch.inputs["attention_mask"].bool() if mask else torch.ones(len(tokens), 5).bool()
            once = torch.relu(model.trunk.first(tokens))
            again = torch.relu(model.trunk.twice(once))
            last = torch.relu(model.trunk.twice(again))
            rows["first"].append(tokens[kept])
            rows["twice"] += [once[kept], again[kept]]
            rows["pooled"].append(model.trunk.attention(last, last, last)[0].mean(1))
    assert set(found) == {"first.weight", "twice.weight", "pooled.weight"}
    for name, each in rows.items():
        gram = found[f"{name}.weight"]
        assert gram.dtype == torch.float32
        torch.testing.assert_close(gram.double(), normalised(each), rtol=1e-5, atol=1e-6)


def test_the_model_is_left_as_it_was(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Gram().collect(model, make_batches(False))
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hooks_are_removed_when_the_model_fails(model):
    batch = Batch({"wrong": torch.zeros(1)}, None, torch.arange(1))
    with pytest.raises(TypeError):
        Gram().collect(model, [batch])
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_a_trunk_that_is_one_linear_layer_has_its_name():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Linear(4, 2, dtype=torch.float64)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.trunk(tokens)

    tokens = torch.eye(4, dtype=torch.float64)
    found = Gram().collect(Bare(), [Batch({"tokens": tokens}, None, torch.arange(4))])
    assert list(found) == ["weight"]
    assert torch.equal(found["weight"], torch.eye(4, dtype=torch.float64) / 4)


def test_a_layer_that_sees_only_padding_has_no_matrix(model):
    (batch,) = make_batches(True, sizes=(2,))
    batch = Batch({**batch.inputs, "attention_mask": torch.zeros(2, 5)}, None, batch.indices)
    assert set(Gram().collect(model, [batch])) == {"pooled.weight"}


def test_no_samples_is_an_error(model):
    with pytest.raises(TaskError, match="no samples"):
        Gram().collect(model, [])
