"""Layers of several checkpoints as one."""

from __future__ import annotations

import pytest
import torch

from fusionbench_core import ConfigError, IncompatibleModels, StateDictCheckpoint
from fusionbench_core.checkpoints.stacked import Slice, StackedCheckpoint
from fusionbench_core.layers import count_layers, layer_of, layer_pattern, place_of
from fusionbench_core.pools.config import build_pool
from fusionbench_core.registry import Registry


def checkpoint(value, layers=4, tie=False, stack="model.layers"):
    state = {
        "lm_head.weight": torch.full((2,), value + 0.9),
        "model.embed_tokens.weight": torch.full((2,), value + 0.8),
        **{f"{stack}.{n}.w": torch.full((3,), value + n / 100) for n in range(layers)},
        "model.norm.weight": torch.full((2,), value + 0.7),
    }
    if tie:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    return StateDictCheckpoint(state, f"m{value:g}")


def stacked(*slices, pattern=None):
    return StackedCheckpoint([Slice(*each) for each in slices], layer_pattern(pattern))


def test_layers_are_numbered_anew_from_the_lowest_slice_up():
    one, two = checkpoint(1.0), checkpoint(2.0)
    found = stacked((one, 0, 3), (two, 2, 4), (one, 1, 2))
    values = [float(found.tensor(f"model.layers.{n}.w")[0]) for n in range(6)]
    assert values == pytest.approx([1.0, 1.01, 1.02, 2.02, 2.03, 1.01])
    assert found.layers == 6
    assert len(found) == 9


def test_embeddings_are_those_of_the_first_slice_and_what_follows_the_layers_of_the_last():
    found = stacked((checkpoint(1.0), 0, 2), (checkpoint(2.0), 0, 2))
    assert float(found.tensor("model.embed_tokens.weight")[0]) == pytest.approx(1.8)
    assert float(found.tensor("model.norm.weight")[0]) == pytest.approx(2.7)
    assert float(found.chunk("lm_head.weight", 1, 2)[0]) == pytest.approx(2.9)


def test_a_tie_stays_where_both_ends_have_it_and_is_undone_where_one_has_not():
    tied, untied = checkpoint(1.0, tie=True), checkpoint(2.0)
    assert stacked((tied, 0, 2), (checkpoint(3.0, tie=True), 0, 2)).aliases
    for ends in ((tied, untied), (untied, tied)):
        assert not stacked((ends[0], 0, 2), (ends[1], 0, 2)).aliases


def test_a_range_beyond_the_layers_is_refused():
    with pytest.raises(IncompatibleModels) as caught:
        stacked((checkpoint(1.0), 2, 5))
    assert "it has 4" in str(caught.value)
    assert "within [0, 4]" in str(caught.value)


def test_of_several_stacks_one_must_be_named():
    state = {
        f"{side}.layers.{n}.w": torch.full((1,), float(n)) for side in ("encoder", "decoder") for n in (0, 1)
    }
    both = StateDictCheckpoint({**state, "shared.weight": torch.ones(1)}, "both")
    with pytest.raises(IncompatibleModels, match="several stacks"):
        stacked((both, 0, 1))
    found = stacked((both, 1, 2), (both, 0, 2), pattern="decoder.layers.{layer}.")
    assert [float(found.tensor(f"decoder.layers.{n}.w")) for n in range(3)] == [1, 0, 1]
    assert {name for name in found if "encoder" in name} == {"encoder.layers.0.w", "encoder.layers.1.w"}


def test_a_model_without_layers_is_refused():
    with pytest.raises(IncompatibleModels, match="no layers are found"):
        stacked((StateDictCheckpoint({"weight": torch.ones(1)}), 0, 1))


def test_the_identity_depends_on_the_slices():
    one, two = checkpoint(1.0), checkpoint(2.0)
    each = [
        stacked((one, 0, 2), (two, 0, 2)),
        stacked((one, 0, 3), (two, 1, 2)),
        stacked((two, 0, 2), (one, 0, 2)),
    ]
    assert len({found.identity() for found in each}) == 3


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model.layers.3.mlp.weight", 3),
        ("transformer.h.11.attn.weight", 11),
        ("encoder.block.2.layer.0.w", 2),
        ("bert.encoder.layer.7.w", 7),
        ("visual.blocks.4.w", 4),
        ("stages.1.w", None),
    ],
)
def test_the_number_of_the_layer_is_found_in_common_names(name, wanted):
    assert layer_of(name) == wanted


def test_how_layers_are_called_can_be_said():
    pattern = layer_pattern("net.stage_{layer}_")
    assert layer_of("net.stage_2_conv.weight", pattern) == 2
    assert layer_of("other.net.stage_2_conv.weight", pattern) == 2
    assert layer_of("subnet.stage_2_conv.weight", pattern) is None
    assert count_layers(["net.stage_0_x", "net.stage_3_x"], pattern) == {
        "net.stage_0_x": 4,
        "net.stage_3_x": 4,
    }


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.embed_tokens.weight", "before"),
        ("transformer.wte.weight", "before"),
        ("transformer.wpe.weight", "before"),
        ("shared.weight", "before"),
        ("bert.embeddings.LayerNorm.weight", "before"),
        ("vision_model.patch_embedding.weight", "before"),
        ("model.norm.weight", "after"),
        ("transformer.ln_f.bias", "after"),
        ("lm_head.weight", "after"),
        ("classifier.weight", "after"),
    ],
)
def test_embeddings_lie_before_the_layers_and_the_rest_after_them(name, place):
    assert place_of(name, None) == place


@pytest.mark.parametrize("layers", [[2, 2], [3, 1], [-1, 2], [0], "all"])
def test_a_reference_with_a_wrong_range_is_refused(layers):
    section = {"models": {"x": {"slices": [{"model": "./a", "layers": layers}]}}}
    with pytest.raises(ConfigError):
        build_pool(section, Registry(()))


@pytest.mark.parametrize("text", ["layers", "{layer}.{layer}"])
def test_a_name_of_layers_without_one_number_is_refused(text):
    with pytest.raises(ConfigError, match="once"):
        build_pool({"models": {"x": "./a"}, "layer_names": text}, Registry(()))
