"""LoRA adapters merge as what they add to the base, not as factors."""

from __future__ import annotations

import copy
import warnings

import peft
import pytest
import torch
import transformers

from fusionbench_core import fuse, load

NAMES = ("one", "two", "three")
SETTINGS = {"r": 3, "lora_alpha": 6, "target_modules": ["query", "dense"]}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """The directory, the base, and three random adapters that peft saved."""
    directory = tmp_path_factory.mktemp("adapters")
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, about what it saves
        base = transformers.BertModel(config).eval()
        base.save_pretrained(directory / "base")
        adapted = {}
        for name in NAMES:
            model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**SETTINGS)).eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
            model.save_pretrained(directory / name)
            adapted[name] = model
    return directory, base, adapted


def fused(directory, output, method, **parameters):
    base = str(directory / "base")
    adapter = {"source": "peft", "base": base, "base_source": "text_encoder"}
    models = {name: {**adapter, "path": str(directory / name)} for name in NAMES}
    path = fuse(method, models, {"source": "text_encoder", "path": base}, output=output, **parameters)
    return load(path).state_dict()


def whole(adapted):
    """Name -> what peft itself merges into the base, in float64."""
    states = {name: copy.deepcopy(model).merge_and_unload().state_dict() for name, model in adapted.items()}
    return {name: {key: value.double() for key, value in state.items()} for name, state in states.items()}


def test_the_average_of_adapters_is_that_of_the_models_they_make(adapters, tmp_path):
    directory, base, adapted = adapters
    merged = fused(directory, tmp_path / "merged", "simple_average")
    states = whole(adapted).values()
    for name in base.state_dict():
        wanted = sum(state[name] for state in states) / len(NAMES)
        torch.testing.assert_close(merged[name].double(), wanted, rtol=1e-6, atol=1e-6)


def test_task_arithmetic_adds_what_adapters_add(adapters, tmp_path):
    directory, base, adapted = adapters
    merged = fused(directory, tmp_path / "merged", "task_arithmetic", scaling_factor=0.4)
    states = whole(adapted).values()
    for name, tensor in base.state_dict().items():
        wanted = tensor.double() + 0.4 * sum(state[name] - tensor.double() for state in states)
        torch.testing.assert_close(merged[name].double(), wanted, rtol=1e-6, atol=1e-6)


def test_averaging_the_factors_apart_mixes_every_adapter_with_every_other(adapters, tmp_path):
    directory, base, adapted = adapters
    merged = fused(directory, tmp_path / "merged", "simple_average")
    layer = "encoder.layer.0.attention.self.query"
    found = [model.get_submodule(f"base_model.model.{layer}") for model in adapted.values()]
    a, b = (
        torch.stack([getattr(each, factor)["default"].weight.detach().double() for each in found])
        for factor in ("lora_A", "lora_B")
    )
    scale, start = SETTINGS["lora_alpha"] / SETTINGS["r"], base.state_dict()[f"{layer}.weight"].double()
    apart = start + scale * b.mean(0) @ a.mean(0)
    # 1/n of all B_i A_i, less the mean of B times the mean of A, is the covariance of B and A among adapters.
    lost = scale * torch.einsum("nor,nri->oi", b - b.mean(0), a - a.mean(0)) / len(NAMES)
    change = merged[f"{layer}.weight"].double() - apart
    torch.testing.assert_close(change, lost, rtol=1e-5, atol=1e-6)
    assert change.norm() > 0.5 * (merged[f"{layer}.weight"].double() - start).norm()
