"""Adapters on disk: what is written is what PEFT adds to the base."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from torch import nn

from fusionbench_core import Adapter, CorruptFile, write_safetensors
from fusionbench_core.artefact.adapter import CONFIG, WEIGHTS, read_adapter, write_adapter


class Conv1D(nn.Module):
    """The layout of transformers' layer of that name: the weight is `(in, out)`."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(width, out)), nn.Parameter(torch.zeros(out))

    def forward(self, x):
        return x @ self.weight + self.bias


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(self.inner(x))


class Model(nn.Module):
    """`inner` is also the end of the name of another layer, `block.inner`."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.block, self.inner = nn.Embedding(9, 6), Block(), nn.Linear(6, 4)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, ids):
        return self.inner(self.block(self.tokens(ids))) * self.scale


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed))
    return module.eval()


def adapter() -> Adapter:
    return Adapter(
        {
            "tokens": (draw(2, 9, seed=20), draw(6, 2, seed=21)),
            "inner": (draw(3, 6, seed=22), draw(4, 3, seed=23)),
        },
        {
            "inner.bias": draw(4, seed=24),
            "block.norm.weight": draw(6, seed=25),
            "block.inner.weight": draw(6, 6, seed=26),
            "scale": draw(4, seed=27),
        },
    )


def expected() -> dict[str, torch.Tensor]:
    state = {name: tensor.double() for name, tensor in filled(Model()).state_dict().items()}
    (embedding_a, embedding_b), (a, b) = adapter().factors["tokens"], adapter().factors["inner"]
    state["tokens.weight"] += (embedding_b.double() @ embedding_a.double()).T
    state["inner.weight"] += b.double() @ a.double()
    return {**state, **{name: tensor.double() for name, tensor in adapter().whole.items()}}


def test_an_adapter_adds_its_products_and_replaces_what_it_holds_whole():
    module = filled(Model())
    adapter().add_to(module)
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected()[name], rtol=1e-6, atol=1e-6)


def test_peft_makes_the_same_model_of_the_files(tmp_path):
    write_adapter(tmp_path, adapter(), Model(), "the/base")
    adapted = peft.PeftModel.from_pretrained(filled(Model()), str(tmp_path))
    ids = torch.arange(9)
    wanted = filled(Model())
    adapter().add_to(wanted)
    torch.testing.assert_close(adapted(ids), wanted(ids), rtol=1e-5, atol=1e-5)
    for name, tensor in adapted.merge_and_unload().state_dict().items():
        torch.testing.assert_close(tensor.double(), expected()[name], rtol=1e-6, atol=1e-6)


def test_files_read_back_as_they_were_written(tmp_path):
    write_adapter(tmp_path, adapter(), Model(), "the/base")
    found = read_adapter(tmp_path)
    assert found.factors.keys() == adapter().factors.keys()
    for name, (a, b) in adapter().factors.items():
        assert torch.equal(found.factors[name][0], a)
        assert torch.equal(found.factors[name][1], b)
    assert all(torch.equal(found.whole[name], tensor) for name, tensor in adapter().whole.items())


def test_every_alpha_is_its_rank_so_that_nothing_is_scaled(tmp_path):
    write_adapter(tmp_path, adapter(), Model(), "the/base")
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["base_model_name_or_path"] == "the/base"
    ranks = {"r": config["r"], **config["rank_pattern"]}
    assert sorted(ranks.values()) == [2, 3]
    assert {"r": config["lora_alpha"], **config["alpha_pattern"]} == ranks


def test_names_of_layers_are_listed_where_they_cannot_be_mistaken(tmp_path):
    plain = Adapter({"block.inner": (draw(3, 6, seed=1), draw(6, 3, seed=2))}, {})
    write_adapter(tmp_path, plain, Model(), "the/base")
    assert json.loads((tmp_path / CONFIG).read_text())["target_modules"] == ["block.inner"]


def test_weights_stored_as_in_by_out_are_adapted_transposed(tmp_path):
    module = nn.Sequential(Conv1D(5, 3))
    change = Adapter({"0": (draw(2, 5, seed=1), draw(3, 2, seed=2))}, {})
    write_adapter(tmp_path, change, module, "the/base")
    assert json.loads((tmp_path / CONFIG).read_text())["fan_in_fan_out"]
    change.add_to(module)
    wanted = (change.factors["0"][1].double() @ change.factors["0"][0].double()).T
    torch.testing.assert_close(module[0].weight.detach().double(), wanted, rtol=1e-6, atol=1e-6)


def test_a_factor_without_its_partner_is_a_corrupt_file(tmp_path):
    write_safetensors(tmp_path / WEIGHTS, {"base_model.model.inner.lora_A.weight": draw(2, 6, seed=1)})
    with pytest.raises(CorruptFile, match="factor A or B of inner is missing"):
        read_adapter(tmp_path)
