"""Depth up-scaling: which layers, in which order, and what is written."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from fb_mixing.depth.depth_upscaling import DepthUpscaling
from torch import nn

from fusionbench_core import ConfigError, UnsupportedArchitecture, fuse, load


class Stack(nn.Module):
    def __init__(self, depth: int = 8) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.utils.skip_init(nn.Linear, 3, 3, bias=False) for _ in range(depth))
        for number, layer in enumerate(self.layers):
            nn.init.constant_(layer.weight, number)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def order(module: nn.Module) -> list[int]:
    return [int(layer.weight[0, 0]) for layer in module.layers]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7]),
        ({"drop": 0.0}, [*range(8), *range(8)]),
        ({"drop": 0.5}, list(range(8))),
        ({"layers": (7, 0, 0)}, [7, 0, 0]),
        ({"layers": (1,), "drop": 0.5}, [1]),
    ],
)
def test_layers_are_stacked_in_order(options, expected):
    """SOLAR: the first n - m layers, then the last n - m, here with n = 8 and m = 2."""
    assert order(fuse("depth_upscaling", {"a": Stack()}, **options)) == expected


def test_copies_of_a_layer_are_trained_apart():
    module = fuse("depth_upscaling", {"a": Stack(2)}, layers=(1, 1))
    module.layers[0].weight.zero_()
    assert order(module) == [0, 1]


STACKS = {
    "llama": "model.layers",
    "bert": "encoder.layer",
    "gpt2": "transformer.h",
    "clip_vision_model": "encoder.layers",
}


@pytest.mark.parametrize("kind", STACKS)
def test_a_deeper_model_computes_its_layers_one_after_the_other(kind, tiny, inputs, computed):
    dense = tiny(kind)
    deeper = fuse(DepthUpscaling(), {"a": dense})
    stack = STACKS[kind]
    by_hand = copy.deepcopy(dense)
    assert dense.config.num_hidden_layers == 4
    owner, _, name = stack.rpartition(".")
    layers = dense.get_submodule(stack)
    expected = nn.ModuleList(copy.deepcopy(layers[index]) for index in (0, 1, 2, 1, 2, 3))
    setattr(by_hand.get_submodule(owner), name, expected)
    by_hand.config.num_hidden_layers = 6
    given = {**inputs(kind), **({} if kind in ("bert", "clip_vision_model") else {"use_cache": False})}
    assert torch.equal(computed(deeper, given), computed(by_hand, given))


@pytest.mark.parametrize("kind", ["mistral", "t5"])
def test_what_is_written_loads_with_transformers(kind, written, inputs, computed, tmp_path):
    pytest.importorskip("fb_nlp_tasks")
    import transformers

    paths = written(kind, torch.bfloat16, a=1)
    out = fuse("depth_upscaling", paths, output=tmp_path / "out")
    config = transformers.AutoConfig.from_pretrained(out)
    assert config.num_hidden_layers == 6
    auto = transformers.AutoModelForSeq2SeqLM if kind == "t5" else transformers.AutoModelForCausalLM
    assert json.loads((out / "fusion.json").read_text())["builder"] is None
    theirs = auto.from_pretrained(out, dtype=torch.float32)
    assert torch.equal(computed(theirs, inputs(kind)), computed(load(out), inputs(kind)))
    assert auto.from_pretrained(out).dtype == torch.bfloat16


def test_a_deeper_model_generates_with_its_cache(tiny):
    deeper = fuse("depth_upscaling", {"a": tiny("llama")})
    ids = torch.tensor([[5, 9, 2]])
    texts = [deeper.generate(ids, max_new_tokens=4, do_sample=False, use_cache=use) for use in (True, False)]
    assert torch.equal(*texts)


def test_a_decoder_alone_is_deepened_where_the_scope_says_so(tiny):
    model = tiny("t5")
    deeper = fuse("depth_upscaling", {"a": model}, scope={"include": ["decoder.*"]})
    assert (len(deeper.encoder.block), len(deeper.decoder.block)) == (4, 6)


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="layer 8 is asked for, and layers has 8"):
        fuse("depth_upscaling", {"a": Stack()}, layers=(0, 8))


def test_a_model_without_layers_is_refused():
    with pytest.raises(UnsupportedArchitecture, match="Linear has no list of layers"):
        fuse("depth_upscaling", {"a": nn.Linear(2, 2)})
