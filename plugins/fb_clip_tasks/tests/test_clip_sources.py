"""Sources agree with their libraries' own `from_pretrained`, name by name and bit by bit."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from fb_clip_tasks.sources.clip import Clip
from fb_clip_tasks.sources.clip_vision import ClipVision
from fb_clip_tasks.sources.image_classifier import ImageClassifier
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    CLIPModel,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from fusionbench_core import CorruptFile, IncompatibleModels, MissingCapability, NotFound, Offline

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def pretrained(cls, directory):
    """A model as transformers reads it, in tensors that are aligned, which the order of sums may follow."""
    return copy.deepcopy(cls.from_pretrained(directory)).eval()


def equal_states(source, module) -> None:
    checkpoint = source.open()
    expected = module.state_dict()
    assert set(checkpoint.keys()) == set(expected) == set(source.skeleton().state_dict())
    for name, tensor in expected.items():
        assert torch.equal(checkpoint.tensor(name), tensor), name
        assert checkpoint.info(name).shape == tuple(tensor.shape)
        assert checkpoint.info(name).dtype == tensor.dtype


@pytest.mark.parametrize("shards", [False, True])
def test_a_full_clip_opens_as_itself(clip_dir, save, tmp_path, shards):
    reference = pretrained(CLIPModel, clip_dir)
    directory = save(reference, tmp_path / "m", **({"max_shard_size": "20KB"} if shards else {}))
    source = Clip(path=str(directory))
    equal_states(source, reference)
    ids = torch.tensor([[0, 5, 6, 1]])
    built = source.build(source.open())
    with torch.no_grad():
        ours = built(input_ids=ids, pixel_values=PIXELS).logits_per_image
        assert torch.equal(ours, reference(input_ids=ids, pixel_values=PIXELS).logits_per_image)


def test_the_vision_tower_of_a_full_clip_is_what_transformers_takes_from_it(clip_dir):
    reference = pretrained(CLIPVisionModelWithProjection, clip_dir)
    source = ClipVision(path=str(clip_dir))
    equal_states(source, reference)
    built = source.build(source.open())
    assert not built.training
    with torch.no_grad():
        assert torch.equal(built(PIXELS).image_embeds, reference(PIXELS).image_embeds)


def test_a_saved_vision_tower_with_projection_opens_as_itself(clip_dir, save, tmp_path):
    reference = pretrained(CLIPVisionModelWithProjection, clip_dir)
    equal_states(ClipVision(path=str(save(reference, tmp_path / "m"))), reference)


def test_half_precision_stays_in_the_file_and_the_module_is_fp32(clip_dir, save, tmp_path):
    reference = CLIPVisionModelWithProjection.from_pretrained(clip_dir).half()
    source = ClipVision(path=str(save(reference, tmp_path / "m")))
    assert {source.open().info(name).dtype for name in source.open()} == {torch.float16}
    assert {p.dtype for p in source.build(source.open()).parameters()} == {torch.float32}


@pytest.mark.parametrize("written", ["by transformers", "as state dict"])
def test_a_tower_without_projection_has_the_same_names_and_gives_pooled_features(
    clip_dir, save, tmp_path, written
):
    reference = pretrained(CLIPVisionModel, clip_dir)
    directory = save(reference, tmp_path / "m")
    if written == "as state dict":
        save_file(reference.state_dict(), directory / "model.safetensors")
    source = ClipVision(path=str(directory))
    whole = set(ClipVision(path=str(clip_dir)).open().keys())
    assert set(source.open().keys()) == whole - {"visual_projection.weight"}
    assert set(source.skeleton().state_dict()) == set(source.open().keys())
    with torch.no_grad():
        embeds = source.build(source.open())(PIXELS).image_embeds
        assert torch.equal(embeds, reference(PIXELS).pooler_output)


def test_a_tower_without_projection_borrows_one(clip_dir, save, tmp_path):
    directory = save(CLIPVisionModel.from_pretrained(clip_dir), tmp_path / "m")
    source = ClipVision(path=str(directory), projection=str(clip_dir))
    equal_states(source, CLIPVisionModelWithProjection.from_pretrained(clip_dir))


def test_position_ids_of_old_checkpoints_are_dropped(clip_dir, save, tmp_path):
    reference = CLIPModel.from_pretrained(clip_dir)
    directory = save(reference, tmp_path / "m")
    state = load_file(directory / "model.safetensors")
    state["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    state["text_model.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(state, directory / "model.safetensors")
    equal_states(Clip(path=str(directory)), reference)
    equal_states(ClipVision(path=str(directory)), CLIPVisionModelWithProjection.from_pretrained(clip_dir))


def test_torch_files_are_read_too(clip_dir, save, tmp_path):
    directory = save(CLIPModel.from_pretrained(clip_dir), tmp_path / "m")
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    equal_states(ClipVision(path=str(directory)), CLIPVisionModelWithProjection.from_pretrained(clip_dir))


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("kind", ["vit", "resnet", "convnext", "dinov2"])
def test_classifiers_open_as_transformers_opens_them(classifier, save, tmp_path, kind, shards):
    reference = classifier(kind)
    directory = save(reference, tmp_path / "m", **({"max_shard_size": "10KB"} if shards else {}))
    source = ImageClassifier(path=str(directory))
    equal_states(source, AutoModelForImageClassification.from_pretrained(directory))
    built = source.build(source.open())
    with torch.no_grad():
        assert torch.equal(built(PIXELS).logits, reference(PIXELS).logits)


def test_batch_norm_statistics_are_part_of_the_weights(classifier, save, tmp_path):
    source = ImageClassifier(path=str(save(classifier("resnet"), tmp_path / "m")))
    names = source.open().keys()
    counters = [name for name in names if name.endswith("num_batches_tracked")]
    assert counters
    assert any(name.endswith("running_var") for name in names)
    assert all(source.build(source.open()).state_dict()[name] == 1 for name in counters)


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_what_is_written_under_the_live_names_loads_with_from_pretrained(
    classifier, clip_dir, save, tmp_path, kind
):
    if kind == "vit":
        source = ImageClassifier(path=str(save(classifier("vit"), tmp_path / "m")))
        auto = AutoModelForImageClassification
    else:
        source, auto = ClipVision(path=str(clip_dir)), CLIPVisionModelWithProjection
    checkpoint = source.open()
    artefact = tmp_path / "artefact"
    artefact.mkdir()
    for asset in source.assets():
        (artefact / asset.name).write_bytes(asset.read_bytes())
    state = {name: checkpoint.tensor(name) + 1 for name in checkpoint}
    save_file(state, artefact / "model.safetensors", metadata={"format": "pt"})
    loaded, info = auto.from_pretrained(artefact, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    equal_states(source.for_artefact(artefact), loaded)
    assert type(source).recognises(str(artefact))


def test_the_config_of_an_artefact_describes_the_vision_tower(clip_dir):
    config = next(a for a in ClipVision(path=str(clip_dir)).assets() if a.name == "config.json")
    content = json.loads(config.read_text())
    assert content["model_type"] == "clip_vision_model"
    assert content["architectures"] == ["CLIPVisionModelWithProjection"]
    assert content["projection_dim"] == 16


def test_each_directory_is_recognised_by_one_source(classifier, clip_dir, open_clip_dir, save, tmp_path):
    from fb_clip_tasks.sources.open_clip import OpenClip

    tower = save(CLIPVisionModel.from_pretrained(clip_dir), tmp_path / "tower")
    directories = {
        "clip": clip_dir,
        "clip_vision": tower,
        "image_classifier": save(classifier("convnext"), tmp_path / "convnext"),
        "open_clip": open_clip_dir,
        "": tmp_path,
    }
    for expected, directory in directories.items():
        sources = (Clip, ClipVision, ImageClassifier, OpenClip)
        found = [cls.record.name for cls in sources if cls.recognises(str(directory))]
        assert found == ([expected] if expected else [])


def test_skeletons_leave_the_global_generator_alone(clip_dir):
    before = torch.get_rng_state()
    ClipVision(path=str(clip_dir)).skeleton()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.nn.init.normal_(torch.empty(3)).abs().sum() > 0


def test_opening_again_does_not_need_the_model_class(clip_dir, monkeypatch, tmp_path):
    first = ClipVision(path=str(clip_dir)).open()
    monkeypatch.setattr(ClipVision, "make", lambda *_: pytest.fail("the module was made again"))
    again = ClipVision(path=str(clip_dir)).open()
    assert again.keys() == first.keys()
    monkeypatch.undo()
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path))
    ClipVision(path=str(clip_dir)).open()
    (note,) = (tmp_path / "names").iterdir()
    note.write_text("{")
    assert ClipVision(path=str(clip_dir)).open().keys() == first.keys()


def test_opening_reads_no_tensor_data(clip_dir, save, tmp_path, monkeypatch):
    from fusionbench_core import SafetensorsCheckpoint

    def refuse(*_):
        raise AssertionError("tensor data was read")

    monkeypatch.setattr(SafetensorsCheckpoint, "chunk", refuse)
    assert len(ClipVision(path=str(clip_dir)).open()) > 0


# --- what can be wrong ----------------------------------------------------------------------------


def test_a_missing_path_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="nothing at"):
        ClipVision(path=str(tmp_path / "no")).open()


def test_a_directory_without_config_is_not_found(tmp_path):
    with pytest.raises(NotFound, match=r"config\.json"):
        ImageClassifier(path=str(tmp_path)).skeleton()


def test_a_malformed_config_is_corrupt(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CorruptFile, match="not valid JSON"):
        Clip(path=str(tmp_path)).skeleton()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CorruptFile, match="model_type"):
        Clip(path=str(tmp_path)).skeleton()


def test_an_unknown_model_type_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "no_such_type"}')
    with pytest.raises(MissingCapability, match="no_such_type"):
        ImageClassifier(path=str(tmp_path)).skeleton()


def test_a_truncated_file_is_corrupt(clip_dir, save, tmp_path):
    directory = save(CLIPVisionModelWithProjection.from_pretrained(clip_dir), tmp_path / "m")
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CorruptFile):
        ClipVision(path=str(directory)).open()


def test_missing_tensors_are_named(clip_dir, save, tmp_path):
    directory = save(CLIPVisionModelWithProjection.from_pretrained(clip_dir), tmp_path / "m")
    state = load_file(directory / "model.safetensors")
    del state["vision_model.post_layernorm.weight"]
    save_file(state, directory / "model.safetensors")
    with pytest.raises(IncompatibleModels) as caught:
        ClipVision(path=str(directory)).open()
    assert "vision_model.post_layernorm.weight" in str(caught.value)


def test_a_classifier_is_no_clip(classifier, save, tmp_path):
    directory = str(save(classifier("convnext"), tmp_path / "m"))
    for cls in (Clip, ClipVision):
        with pytest.raises(MissingCapability):
            cls(path=directory).open()


def test_a_hub_id_offline_says_what_to_download_and_where_it_was_looked_for(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Offline) as caught:
        ClipVision(path="openai/clip-vit-base-patch32@main").open()
    text = str(caught.value)
    assert "hf download openai/clip-vit-base-patch32 --revision main" in text
    assert str(tmp_path) in text
    assert caught.value.exit_code == 5


def test_a_cached_snapshot_without_weights_is_offline_too(monkeypatch, tmp_path, clip_dir):
    import huggingface_hub

    (tmp_path / "config.json").write_bytes((clip_dir / "config.json").read_bytes())
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(Offline, match="some/model"):
        ClipVision(path="some/model").open()


def test_a_cached_snapshot_is_used(monkeypatch, clip_dir):
    import huggingface_hub

    asked = {}

    def snapshot(name, **options):
        asked.update(options, name=name)
        return str(clip_dir)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    source = ClipVision(path="some/model", revision="abc")
    equal_states(source, CLIPVisionModelWithProjection.from_pretrained(clip_dir))
    assert (asked["name"], asked["revision"]) == ("some/model", "abc")
    assert source.for_artefact(clip_dir).revision is None
