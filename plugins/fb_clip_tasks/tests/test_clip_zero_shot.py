"""Zero-shot classification: the head's formula, heads' cache, trunks, and what can be wrong."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from fb_clip_tasks.sources.clip import Clip
from fb_clip_tasks.sources.clip_vision import ClipVision
from fb_clip_tasks.sources.open_clip import OpenClip
from fb_clip_tasks.tasks import zero_shot_head
from fb_clip_tasks.tasks.text import ClipText, PromptTable
from fb_clip_tasks.tasks.zero_shot import ZeroShotImageClassification
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPModel, CLIPVisionModel

from fusionbench_core import ConfigError, CorruptFile, EvalContext, Offline, TaskError

LABELS = ("cat", "dog", "owl")
TEMPLATES = ("a photo of the {}.", "a big picture of a {} .")


@pytest.fixture
def make(clip_dir, tiny_data):
    def make(**changes):
        given = {"name": "toy", "dataset": str(tiny_data), "text": str(clip_dir), **changes}
        return ZeroShotImageClassification.model_validate(given)

    return make


def float64_logits(clip_dir, pixels):
    """The formula of zero-shot classification, written out."""
    model = CLIPModel.from_pretrained(clip_dir).double().eval()
    tokenizer = AutoTokenizer.from_pretrained(clip_dir)
    rows = []
    for label in LABELS:
        total = 0
        for template in TEMPLATES:
            ids = tokenizer(template.replace("{}", label), return_tensors="pt")
            hidden = model.text_model(**ids).last_hidden_state
            end = (ids["input_ids"][0] == model.config.text_config.eos_token_id).nonzero()[0, 0]
            text = model.text_projection.weight @ hidden[0, end]
            total = total + text / text.norm()
        rows.append(total / total.norm())
    image = model.vision_model(pixel_values=pixels.double()).pooler_output @ model.visual_projection.weight.T
    cosines = torch.stack([image[i] / image[i].norm() for i in range(len(image))]) @ torch.stack(rows).T
    return model.logit_scale.exp() * cosines


@torch.no_grad()
def test_logits_are_the_formula_written_out(make, clip_dir):
    task = make()
    source = ClipVision(path=str(clip_dir))
    model = task.attach(source.build(source.open()))
    batch = next(task.batches("test", labelled=True))
    logits = model(**batch.inputs)
    expected = float64_logits(clip_dir, batch.inputs["pixel_values"])
    torch.testing.assert_close(logits.double(), expected, rtol=1e-4, atol=1e-4)
    assert logits.std() > 1e-3, "the toy model must tell its images apart, or the test shows nothing"


@torch.no_grad()
def test_a_full_clip_as_trunk_gives_the_same_logits(make, clip_dir):
    task, tower, whole = make(), ClipVision(path=str(clip_dir)), Clip(path=str(clip_dir))
    batch = next(task.batches("test", labelled=False))
    one = task.attach(tower.build(tower.open()))(**batch.inputs)
    other = task.attach(whole.build(whole.open()))(**batch.inputs)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("visual_only", [False, True])
@torch.no_grad()
def test_open_clip_towers_and_text(make, open_clip_dir, visual_only):
    task = make(text={"kind": "open_clip", "path": str(open_clip_dir)})
    source = OpenClip(path=str(open_clip_dir), visual_only=visual_only)
    model = task.attach(source.build(source.open()))
    batch = next(task.batches("test", labelled=False))
    plain = OpenClip(path=str(open_clip_dir))
    reference = plain.build(plain.open())
    tokens = open_clip.SimpleTokenizer(context_length=16)
    text = torch.stack(
        [
            reference.encode_text(tokens([t.replace("{}", label) for t in TEMPLATES]), normalize=True).mean(0)
            for label in LABELS
        ]
    )
    image = reference.encode_image(batch.inputs["pixel_values"], normalize=True)
    expected = reference.logit_scale.exp() * image @ (text / text.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(model(**batch.inputs), expected, rtol=1e-4, atol=1e-5)


def test_the_trunk_is_not_copied_and_the_head_is_not_stored(make, clip_dir):
    source = ClipVision(path=str(clip_dir))
    trunk = source.build(source.open())
    model = make().attach(trunk)
    assert model.trunk is trunk
    assert set(model.state_dict()) == {f"trunk.{name}" for name in trunk.state_dict()}
    assert model.head.shape == (3, 16)


def test_gradients_reach_the_trunk(make, clip_dir):
    task, source = make(), ClipVision(path=str(clip_dir))
    model = task.attach(source.build(source.open()).requires_grad_(True))
    batch = next(task.batches("test", labelled=True))
    task.loss(model(**batch.inputs), batch.labels).backward()
    assert model.trunk.visual_projection.weight.grad.abs().sum() > 0


def test_evaluation_counts_what_the_logits_say(make, clip_dir):
    task, source = make(), ClipVision(path=str(clip_dir))
    model = task.attach(source.build(source.open()))
    result = task.evaluate(model, EvalContext(batch_size=5))
    batch = next(task.batches("test", labelled=True, batch_size=100))
    with torch.no_grad():
        right = (model(**batch.inputs).argmax(1) == batch.labels).double().mean().item()
    assert result.metrics["accuracy"] == right
    assert result.n == 12
    assert task.card().splits == {"train": 9, "validation": 6, "test": 12}


@torch.no_grad()
def test_images_are_resized_to_the_trunk(make, clip_dir):
    task, source = make(image_size=48), ClipVision(path=str(clip_dir))
    batch = next(task.batches("test", labelled=False))
    assert batch.inputs["pixel_values"].shape[-2:] == (48, 48)
    assert task.attach(source.build(source.open()))(**batch.inputs).shape == (12, 3)


# --- the head's cache -----------------------------------------------------------------------------


def test_a_head_is_made_once_and_then_read(make, monkeypatch):
    first = make().head
    monkeypatch.setattr(ClipText, "embed", lambda *_: pytest.fail("the text tower ran again"))
    again = make().head
    assert torch.equal(first.weight, again.weight)
    assert first.scale == again.scale


@pytest.mark.parametrize("changes", [{"templates": ["the {}."]}, {"labels": ["cat", "dog", "big"]}])
def test_other_prompts_are_another_head(make, changes):
    assert make(**changes).fingerprint() != make().fingerprint()
    assert not torch.equal(make(**changes).head.weight, make().head.weight)


def test_a_damaged_cache_is_made_again(make, tmp_path, monkeypatch):
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path))
    first = make().head.weight
    (file,) = (tmp_path / "heads").iterdir()
    file.write_bytes(b"rubbish")
    assert torch.equal(make().head.weight, first)
    assert file.read_bytes() != b"rubbish"


def test_without_a_cache_directory_it_still_works(make, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path / "file"))
    assert make().head.weight.shape == (3, 16)


# --- the prompt table -----------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    prompts = [t.replace("{}", label) for label in LABELS for t in TEMPLATES]
    values = torch.randn(len(prompts), 16, generator=torch.Generator().manual_seed(4))
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    save_file({"embeddings": values / values.norm(dim=1, keepdim=True)}, tmp_path / "prompts.safetensors")
    save_file({"logit_scale": torch.tensor(20.0).log()}, tmp_path / "projection.safetensors")
    return tmp_path, values.double()


def test_the_table_gives_the_same_head_as_the_formula(make, table):
    directory, values = table
    unit = values / values.norm(dim=1, keepdim=True)
    expected = unit.view(3, 2, 16).mean(1)
    expected = expected / expected.norm(dim=1, keepdim=True)
    head = make(text={"kind": "table", "path": str(directory)}).head
    torch.testing.assert_close(head.weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert head.scale == pytest.approx(20)


def test_new_prompts_need_a_text_tower(make, table):
    task = make(text={"kind": "table", "path": str(table[0])}, templates=["a drawing of {}."])
    with pytest.raises(TaskError, match="3 of 3 prompts") as caught:
        _ = task.head
    assert "a drawing of cat." in str(caught.value)
    assert "text tower" in str(caught.value)


def test_a_table_that_does_not_fit_its_prompts_is_corrupt(make, table):
    (table[0] / "prompts.json").write_text('["one"]')
    with pytest.raises(CorruptFile, match="does not fit"):
        _ = make(text={"kind": "table", "path": str(table[0])}).head
    (table[0] / "prompts.json").write_text("{")
    with pytest.raises(CorruptFile, match="prompts"):
        _ = make(text={"kind": "table", "path": str(table[0])}).head


# --- what can be wrong ----------------------------------------------------------------------------


def test_text_is_given_in_short_forms(make):
    assert make(text="embedded").text == PromptTable()
    assert make(text="some/clip").text == ClipText(path="some/clip")
    assert make(text={"path": "some/clip", "revision": "x"}).text.revision == "x"


def test_a_tower_without_projection_is_explained(make, clip_dir, save, tmp_path):
    model = CLIPVisionModel.from_pretrained(clip_dir)
    source = ClipVision(path=str(save(model, tmp_path / "m")))
    task = make()
    attached = task.attach(source.build(source.open()))
    with pytest.raises(TaskError, match="width 16") as caught:
        attached(**next(task.batches("test", labelled=False)).inputs)
    assert "projection" in str(caught.value)


def test_a_trunk_without_embeddings_is_explained(make, classifier):
    task = make()
    with pytest.raises(TaskError, match="no image embeddings"):
        task.attach(classifier("resnet"))(**next(task.batches("test", labelled=False)).inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"templates": ["a photo"]}, "must hold {} once"),
        ({"labels": ["cat", "dog"]}, "2 labels for 3 classes"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(make, changes, message):
    with pytest.raises(ConfigError) as caught:
        make(**changes).fingerprint()
    assert message in str(caught.value)


def test_a_text_tower_that_is_offline_says_so(make, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Offline, match="openai/clip"):
        make(text="openai/clip-vit-base-patch32").fingerprint()


def test_every_word_of_the_prompts_is_known_to_the_toy_tokenizer(clip_dir):
    tokenizer = AutoTokenizer.from_pretrained(clip_dir)
    ids = tokenizer("a picture of photo the cat dog owl . big")["input_ids"]
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert zero_shot_head._FORMAT == 1
