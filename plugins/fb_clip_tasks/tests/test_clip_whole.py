"""From checkpoints through a merge to an artefact that everybody can load."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AutoModelForImageClassification, CLIPVisionModel, CLIPVisionModelWithProjection

from fusionbench_core import evaluate, fuse, load

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def perturbed(model, seed):
    twin = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
    return twin


@pytest.fixture
def towers(clip_dir, save, tmp_path):
    """Experts as FusionBench's are saved: towers without the projection."""
    tower = CLIPVisionModel.from_pretrained(clip_dir).eval()
    return {name: str(save(perturbed(tower, i), tmp_path / name)) for i, name in enumerate(("cat", "dog"))}


def test_towers_of_a_full_clip_merge_into_a_tower_with_projection(clip_dir, towers, tmp_path, tiny_data):
    output = fuse(
        "task_arithmetic",
        models=towers,
        base=str(clip_dir),
        source={"name": "clip_vision", "projection": str(clip_dir)},
        scaling_factor=0.5,
        output=tmp_path / "merged",
    )
    experts = [CLIPVisionModel.from_pretrained(path).state_dict() for path in towers.values()]
    base = CLIPVisionModelWithProjection.from_pretrained(clip_dir)
    merged, info = CLIPVisionModelWithProjection.from_pretrained(output, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, tensor in merged.state_dict().items():
        old = base.state_dict()[name].double()
        if name == "visual_projection.weight":
            assert torch.equal(tensor, base.state_dict()[name])
            continue
        deltas = sum(state[name.removeprefix("vision_model.")].double() - old for state in experts)
        torch.testing.assert_close(tensor.double(), old + 0.5 * deltas, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(load(output)(PIXELS).image_embeds, merged.eval()(PIXELS).image_embeds)


@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_classifiers_merge_and_load_with_transformers(classifier, save, tmp_path, kind):
    models = {str(i): str(save(perturbed(classifier(kind), i), tmp_path / str(i))) for i in range(2)}
    output = fuse("simple_average", models=models, output=tmp_path / "merged")
    states = [AutoModelForImageClassification.from_pretrained(path).state_dict() for path in models.values()]
    merged = AutoModelForImageClassification.from_pretrained(output).eval()
    for name, tensor in merged.state_dict().items():
        mean = sum(state[name].double() for state in states) / 2
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        assert torch.equal(load(output)(PIXELS).logits, merged(PIXELS).logits)


def test_open_clip_towers_merge_and_load_again(open_clip_dir, tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(open_clip_dir / "open_clip_model.safetensors")
    models = {}
    for index in range(2):
        directory = tmp_path / str(index)
        directory.mkdir()
        save_file(
            {name: value + index for name, value in state.items()}, directory / "open_clip_model.safetensors"
        )
        config = (open_clip_dir / "open_clip_config.json").read_bytes()
        (directory / "open_clip_config.json").write_bytes(config)
        models[str(index)] = str(directory)
    source = {"name": "open_clip", "visual_only": True}
    output = fuse("simple_average", models=models, source=source, output=tmp_path / "merged")
    merged = load(output).state_dict()
    torch.testing.assert_close(merged["conv1.weight"], state["visual.conv1.weight"] + 0.5)
    assert not any(name.startswith("visual.") for name in merged)


def test_what_was_merged_is_measured(clip_dir, towers, tmp_path, tiny_data):
    from fb_clip_tasks.tasks.zero_shot import ZeroShotImageClassification

    output = fuse(
        "simple_average",
        models=towers,
        base=str(clip_dir),
        source={"name": "clip_vision", "projection": str(clip_dir)},
        output=tmp_path / "merged",
    )
    given = {"name": "toy", "dataset": str(tiny_data), "text": str(clip_dir)}
    task = ZeroShotImageClassification.model_validate(given)
    assert evaluate(load(output), {"toy": task})["toy"].n == 12
