"""LoRA adapters from models that were trained whole, and adapters merged as what they add."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fb_merging.compression.lora_extract import LoraExtract
from pydantic import ValidationError
from torch import nn

from fusionbench_core import ConfigError, fuse
from fusionbench_core.registry import default_registry
from fusionbench_core.testing import subject_of
from fusionbench_core.testing.artefacts import load_written, write_artefact
from fusionbench_core.testing.zoo import case
from fusionbench_core.testing.zoo_source import pool_on_disk

OTHERS = ("norm.weight", "norm.bias", "mix.bias", "head.bias", "conv.weight", "conv.bias")


class Model(nn.Module):
    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.tokens, self.mix = nn.Embedding(12, 8), nn.Linear(8, 10)
        self.norm, self.head = nn.LayerNorm(10), nn.Linear(10, 12)
        self.conv = nn.Conv1d(2, 2, 3)
        if tied:
            self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 12)
            self.head.weight = self.tokens.weight


def models(tied: bool = False, decay: float = 1.0) -> tuple[nn.Module, nn.Module]:
    """A base and a model tuned from it; singular values of the changes fall by `decay`."""
    generator = torch.Generator().manual_seed(0)
    base, tuned = Model(tied), Model(tied)
    with torch.no_grad():
        for one, other in zip(base.parameters(), tuned.parameters()):
            one.copy_(torch.randn(one.shape, generator=generator))
            change = 0.1 * torch.randn(one.shape, generator=generator)
            if change.dim() == 2 and decay < 1:
                u, s, vh = torch.linalg.svd(change, full_matrices=False)
                change = (u * decay ** torch.arange(len(s))) @ vh
            other.copy_(one + change)
    return base.eval(), tuned.eval()


def truncated(base: nn.Module, tuned: nn.Module, name: str, rank: int) -> np.ndarray:
    start, end = (each.state_dict()[name].double().numpy() for each in (base, tuned))
    u, s, vh = np.linalg.svd(end - start, full_matrices=False)
    return start + (u[:, :rank] * s[:rank]) @ vh[:rank]


@pytest.mark.parametrize("name", ["tokens.weight", "mix.weight", "head.weight"])
@pytest.mark.parametrize("rank", [1, 3])
def test_the_adapter_adds_the_truncated_decomposition(name, rank):
    base, tuned = models()
    found = fuse("lora_extract", {"tuned": tuned}, base, rank=rank)
    wanted = truncated(base, tuned, name, rank)
    np.testing.assert_allclose(found.state_dict()[name].double().numpy(), wanted, rtol=0, atol=2e-6)


def test_at_full_rank_the_adapter_is_the_model():
    base, tuned = models()
    found = fuse("lora_extract", {"tuned": tuned}, base, rank=12).state_dict()
    for name, tensor in tuned.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


def test_energy_keeps_the_fewest_directions_that_hold_it():
    base, tuned = models(decay=0.5)
    found = fuse("lora_extract", {"tuned": tuned}, base, energy=0.9)
    # 1 + 1/4 of 4/3 is more than 0.9 of it, 1 is less.
    wanted = truncated(base, tuned, "mix.weight", 2)
    np.testing.assert_allclose(found.state_dict()["mix.weight"].double().numpy(), wanted, rtol=0, atol=2e-6)


def test_a_random_sketch_comes_near_the_best_adapter_where_the_spectrum_falls():
    base, tuned = models(decay=0.2)
    sketched = fuse(
        "lora_extract", {"tuned": tuned}, base, rank=2, factorization="randomized", oversampling=2
    ).state_dict()["mix.weight"]
    wanted = truncated(base, tuned, "mix.weight", 2)
    # What the best adapter of rank 2 leaves out is about 0.2 ** 2 of the largest singular value, 1.
    assert np.abs(sketched.double().numpy() - wanted).max() < 0.1 * 0.2**2


@pytest.mark.parametrize(
    ("parameters", "kept"),
    [
        ({"others": "base"}, {*OTHERS}),
        ({"embeddings": "base"}, {"tokens.weight"}),
        ({"exclude": ["head.*"]}, {"head.weight", "head.bias"}),
    ],
)
def test_what_is_left_to_the_base_is_the_base(parameters, kept):
    base, tuned = models()
    found = fuse("lora_extract", {"tuned": tuned}, base, rank=2, **parameters).state_dict()
    assert {name for name, tensor in base.state_dict().items() if torch.equal(found[name], tensor)} == kept


@pytest.mark.parametrize("parameters", [{"embeddings": "whole"}, {"whole": ["tokens.*"]}])
def test_what_is_stored_whole_is_the_model(parameters):
    base, tuned = models()
    found = fuse("lora_extract", {"tuned": tuned}, base, rank=1, **parameters).state_dict()
    assert torch.equal(found["tokens.weight"], tuned.state_dict()["tokens.weight"])
    assert torch.equal(found["norm.weight"], tuned.state_dict()["norm.weight"])


def test_weights_that_layers_share_are_not_adapted_in_one_of_them():
    base, tuned = models(tied=True)
    with pytest.raises(ConfigError, match="share their weights"):
        fuse("lora_extract", {"tuned": tuned}, base)
    found = fuse("lora_extract", {"tuned": tuned}, base, embeddings="base").state_dict()
    assert torch.equal(found["head.weight"], base.state_dict()["head.weight"])


@pytest.mark.parametrize(
    "parameters", [{"rank": 4, "energy": 0.9}, {"energy": 0.9, "factorization": "randomized"}, {"rank": 0}]
)
def test_parameters_that_do_not_fit_together_are_refused(parameters):
    with pytest.raises(ValidationError):
        LoraExtract(**parameters)


def written(tmp_path, **parameters):
    """A model of the zoo and its adapter on disk."""
    subject = subject_of(LoraExtract.record, default_registry())
    made = case("mlp", count=1)
    pool = pool_on_disk(made, tmp_path / "models")
    write_artefact(subject, pool, made.tasks, tmp_path / "adapter", method=LoraExtract(**parameters))
    return subject, made, tmp_path / "adapter"


def test_the_artefact_is_an_adapter_that_peft_loads(tmp_path):
    peft = pytest.importorskip("peft")
    _, made, directory = written(tmp_path, rank=64)
    names = {file.name for file in directory.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "fusion.json", "README.md"}
    (tuned,) = made.models.values()
    adapted = peft.PeftModel.from_pretrained(made.base, str(directory)).merge_and_unload()
    for name, tensor in tuned.state_dict().items():
        torch.testing.assert_close(adapted.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)


def test_the_artefact_loads_as_what_was_made_in_memory(tmp_path):
    subject, made, directory = written(tmp_path, rank=2)
    loaded = load_written(subject, directory).state_dict()
    memory = fuse("lora_extract", dict(made.models), made.base, rank=2).state_dict()
    for name, tensor in memory.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=1e-6, atol=1e-6)
