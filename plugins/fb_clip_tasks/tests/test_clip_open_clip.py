"""open_clip checkpoints, compared with open_clip's own loading."""

from __future__ import annotations

import copy
import json
import logging

import open_clip
import pytest
import torch
from fb_clip_tasks.sources.open_clip import OpenClip
from safetensors.torch import load_file, save_file

from fusionbench_core import ConfigError, CorruptFile, IncompatibleModels, NotFound, UntrustedFormat

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def reference(open_clip_dir, monkeypatch):
    # open_clip logs on the root logger, which would set it up for good.
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    # Aligned and frozen, as ours are: the last bits follow where tensors begin in memory, and attention takes
    # another way through where weights are trained.
    return copy.deepcopy(open_clip.create_model(f"local-dir:{open_clip_dir}")).eval().requires_grad_(False)


def test_names_tensors_and_outputs_are_those_of_open_clip(open_clip_dir, reference):
    source = OpenClip(path=str(open_clip_dir))
    checkpoint = source.open()
    assert set(checkpoint.keys()) == set(reference.state_dict()) == set(source.skeleton().state_dict())
    built = source.build(checkpoint)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(checkpoint.tensor(name), tensor)
    ids = open_clip.SimpleTokenizer(context_length=16)(["a cat", "two dogs"])
    with torch.no_grad():
        assert torch.equal(built.encode_image(PIXELS), reference.encode_image(PIXELS))
        assert torch.equal(built.encode_text(ids), reference.encode_text(ids))


def test_the_visual_tower_alone(open_clip_dir, reference):
    source = OpenClip(path=str(open_clip_dir), visual_only=True)
    assert set(source.open().keys()) == set(reference.visual.state_dict())
    assert set(source.skeleton().state_dict()) == set(source.open().keys())
    with torch.no_grad():
        assert torch.equal(source.build(source.open())(PIXELS), reference.visual(PIXELS))


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model."])
@pytest.mark.parametrize("visual_only", [False, True])
def test_prefixes_of_training_are_stripped(open_clip_dir, tmp_path, prefix, visual_only):
    state = load_file(open_clip_dir / "open_clip_model.safetensors")
    torch.save({"state_dict": {prefix + name: value for name, value in state.items()}}, tmp_path / "m.pt")
    (tmp_path / "open_clip_config.json").write_bytes((open_clip_dir / "open_clip_config.json").read_bytes())
    source = OpenClip(path=str(tmp_path / "m.pt"), visual_only=visual_only)
    expected = OpenClip(path=str(open_clip_dir), visual_only=visual_only).open()
    assert set(source.open().keys()) == set(expected.keys())
    assert source.open().fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("visual_only", [False, True])
def test_an_artefact_opens_again(open_clip_dir, tmp_path, visual_only):
    source = OpenClip(path=str(open_clip_dir), visual_only=visual_only)
    checkpoint = source.open()
    state = {name: checkpoint.tensor(name) + 1 for name in checkpoint}
    save_file(state, tmp_path / "model.safetensors")
    for asset in source.assets():
        (tmp_path / asset.name).write_bytes(asset.read_bytes())
    again = source.for_artefact(tmp_path)
    built = again.build(again.open()).state_dict()
    assert all(torch.equal(built[name], tensor) for name, tensor in state.items())


def test_a_named_architecture_writes_its_config_into_artefacts(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"")
    (asset,) = OpenClip(path=str(tmp_path / "x.pt"), model="ViT-B-32").assets()
    assert asset.name == "open_clip_config.json"
    assert json.loads(asset.read_text())["model_cfg"]["embed_dim"] == 512


def test_skeletons_leave_the_global_generator_alone(open_clip_dir):
    before = torch.get_rng_state()
    OpenClip(path=str(open_clip_dir)).skeleton()
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.nn.Linear(2, 2).weight.is_meta


def test_an_unknown_architecture_suggests_one(open_clip_dir):
    with pytest.raises(ConfigError, match="ViT-B32") as caught:
        OpenClip(path=str(open_clip_dir), model="ViT-B32").open()
    assert "ViT-B-32" in str(caught.value)


def test_no_architecture_at_all_is_an_error(tmp_path, open_clip_dir):
    (tmp_path / "m.safetensors").write_bytes((open_clip_dir / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(NotFound, match="open_clip_config"):
        OpenClip(path=str(tmp_path / "m.safetensors")).open()
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(CorruptFile, match="model_cfg"):
        OpenClip(path=str(tmp_path / "m.safetensors")).open()


def test_weights_of_another_architecture_are_named(open_clip_dir):
    with pytest.raises(IncompatibleModels, match="ViT-B-32"):
        OpenClip(path=str(open_clip_dir), model="ViT-B-32").open()


def test_pickled_modules_are_refused(open_clip_dir, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pt")
    (tmp_path / "open_clip_config.json").write_bytes((open_clip_dir / "open_clip_config.json").read_bytes())
    with pytest.raises(UntrustedFormat):
        OpenClip(path=str(tmp_path / "m.pt")).open()
