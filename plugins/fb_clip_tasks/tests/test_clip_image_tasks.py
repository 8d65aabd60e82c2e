"""Image data, preprocessing, batches; classification with a model's own head and with an expert's."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from fb_clip_tasks.sources.image_classifier import ImageClassifier
from fb_clip_tasks.tasks.image_classification import ImageClassification
from fb_clip_tasks.tasks.images import ArrayImages
from fb_clip_tasks.tasks.preprocessing import resized, size_of
from torch.nn import functional as F

from fusionbench_core import ConfigError, CorruptFile, EvalContext, MissingCapability, NotFound, TaskError


@pytest.fixture
def make(tiny_data):
    def make(**changes):
        return ImageClassification.model_validate({"name": "toy", "dataset": str(tiny_data), **changes})

    return make


@pytest.fixture
def copied(tiny_data, tmp_path):
    for suffix in (".npz", ".json"):
        shutil.copy(tiny_data.with_suffix(suffix), tmp_path)
    return tmp_path / "toy.npz"


# --- batches --------------------------------------------------------------------------------------


def test_pixels_are_normalised_as_the_card_says(make, tiny_data):
    with np.load(tiny_data, allow_pickle=False) as content:
        raw = content["x_test"].astype(np.float64) / 255
    expected = ((raw - [0.5, 0.4, 0.3]) / [0.5, 0.6, 0.7]).transpose(0, 3, 1, 2)
    pixels = next(make().batches("test", labelled=False, batch_size=12)).inputs["pixel_values"]
    assert pixels.dtype == torch.float32
    np.testing.assert_allclose(pixels.numpy(), expected, atol=1e-6)


def test_a_task_may_set_its_own_normalisation(make):
    task = make(mean=[0, 0, 0], std=[1, 1, 1])
    pixels = next(task.batches("test", labelled=False)).inputs["pixel_values"]
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert task.fingerprint() != make().fingerprint()


def test_grey_images_get_three_channels(copied, make):
    rewrite(copied, images=lambda x: x[..., 0])
    pixels = next(make(dataset=str(copied), mean=[0] * 3, std=[1] * 3).batches("test", labelled=False))
    pixels = pixels.inputs["pixel_values"]
    assert pixels.shape == (12, 3, 32, 32)
    assert torch.equal(pixels[:, 0], pixels[:, 2])


def test_batches_keep_the_order_without_a_seed_and_shuffle_with_one(make):
    task = make()
    plain = [batch.indices for batch in task.batches("test", labelled=True, batch_size=5)]
    assert [len(indices) for indices in plain] == [5, 5, 2]
    assert torch.equal(torch.cat(plain), torch.arange(12))
    state = torch.get_rng_state()
    one, two, other = (
        torch.cat([batch.indices for batch in task.batches("test", labelled=True, seed=seed)])
        for seed in (1, 1, 2)
    )
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert sorted(one.tolist()) == list(range(12))


def test_labels_follow_their_images(make):
    for batch in make().batches("test", labelled=True, seed=3, limit=7, batch_size=4):
        assert torch.equal(batch.labels, batch.indices % 3)
        assert torch.equal(batch.inputs["pixel_values"].mean((2, 3)).argmax(1), batch.labels)


def test_labels_are_not_given_unasked(make):
    batches = list(make().batches("train", labelled=False, limit=5))
    assert all(batch.labels is None for batch in batches)
    assert sum(len(batch) for batch in batches) == 5


def test_resizing_is_torch_bicubic_with_antialiasing_and_stays_in_range(make):
    task = make(image_size=16, mean=[0] * 3, std=[1] * 3)
    small = next(task.batches("test", labelled=False)).inputs["pixel_values"]
    images = task.images.pixels("test", torch.arange(12))
    expected = F.interpolate(images, (16, 16), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(small, expected)
    assert resized(images, (32, 32)) is images


# --- the card and the arrays ----------------------------------------------------------------------


def rewrite(file, images=lambda x: x, labels=lambda y: y, keep_hash=False):
    with np.load(file, allow_pickle=False) as content:
        arrays = {key: (images if key[0] == "x" else labels)(content[key]) for key in content.files}
    np.savez(file, **arrays)
    if not keep_hash:
        card = json.loads(file.with_suffix(".json").read_text())
        for facts in card["splits"].values():
            facts.pop("sha256", None)
        file.with_suffix(".json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"images": lambda x: 255 - x, "keep_hash": True}, "another hash"),
        ({"labels": lambda y: y + 1}, "labels go from 1 to 3"),
        ({"labels": lambda y: y[:-1]}, "on the card"),
        ({"images": lambda x: x.astype(np.float32)}, "float32"),
        ({"images": lambda x: x[..., :2]}, "images are"),
    ],
)
def test_data_that_does_not_fit_its_card_is_corrupt(copied, make, change, why):
    rewrite(copied, **change)
    with pytest.raises(CorruptFile) as caught:
        next(make(dataset=str(copied)).batches("test", labelled=False))
    assert why in str(caught.value)


def test_data_without_hashes_on_its_card_is_hashed(copied, make):
    rewrite(copied)
    before = make(dataset=str(copied)).fingerprint()
    rewrite(copied, images=lambda x: 255 - x)
    assert make(dataset=str(copied)).fingerprint() != before


def test_a_truncated_archive_is_corrupt(copied, make):
    copied.write_bytes(copied.read_bytes()[:-200])
    with pytest.raises(CorruptFile, match="cannot be read"):
        next(make(dataset=str(copied)).batches("test", labelled=False))


def test_pickled_arrays_are_refused(copied, make):
    np.savez(copied, x_test=np.array([{}], dtype=object), y_test=np.array([0]))
    with pytest.raises(CorruptFile):
        next(make(dataset=str(copied)).batches("test", labelled=False))


def test_a_malformed_card_names_what_is_wrong(copied, make):
    card = json.loads(copied.with_suffix(".json").read_text())
    del card["labels"]
    copied.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(CorruptFile, match="card") as caught:
        make(dataset=str(copied)).card()
    assert "labels" in str(caught.value)


def test_unknown_data_is_not_found(make, tmp_path):
    with pytest.raises(NotFound, match="no embedded data set is called 'mnistt'"):
        make(dataset="mnistt").card()
    with pytest.raises(NotFound):
        make(dataset=str(tmp_path / "x.npz")).card()


def test_an_unknown_split_lists_those_there_are(copied, make):
    card = json.loads(copied.with_suffix(".json").read_text())
    del card["splits"]["validation"]
    copied.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(TaskError, match="no split 'validation'") as caught:
        next(make(dataset=str(copied)).batches("validation", labelled=False))
    assert "train, test" in str(caught.value)


def test_the_fingerprint_knows_the_content_not_the_place(make, copied, tiny_data):
    assert make(dataset=str(copied)).fingerprint() == make().fingerprint()
    assert make(name="other").fingerprint() == make().fingerprint()
    assert ArrayImages(tiny_data).fingerprint() == ArrayImages(copied).fingerprint()


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vit", "resnet", "convnext"])
@torch.no_grad()
def test_a_model_classifies_with_its_own_head(make, classifier, kind):
    task, trunk = make(), classifier(kind)
    model = task.attach(trunk)
    batch = next(task.batches("test", labelled=True))
    assert torch.equal(model(**batch.inputs), trunk(batch.inputs["pixel_values"]).logits)
    assert model.trunk is trunk
    assert task.evaluate(model, EvalContext()).n == 12


@pytest.mark.parametrize("kind", ["vit", "resnet", "convnext"])
@torch.no_grad()
def test_the_head_of_an_expert_is_used_and_the_trunk_keeps_its_own(make, classifier, save, tmp_path, kind):
    expert = classifier(kind)
    for name, parameter in expert.named_parameters():
        if name.startswith("classifier"):
            parameter.add_(1.5)
    task = make(head_from=str(save(expert, tmp_path / "expert")))
    trunk = classifier(kind)
    before = {name: tensor.clone() for name, tensor in trunk.state_dict().items()}
    model = task.attach(trunk)
    pixels = next(task.batches("test", labelled=False)).inputs["pixel_values"]
    torch.testing.assert_close(model(pixels), expert(pixels).logits)
    assert all(torch.equal(before[name], tensor) for name, tensor in trunk.state_dict().items())
    assert set(model.state_dict()) == {f"trunk.{name}" for name in before}
    assert make().fingerprint() != task.fingerprint()


def test_a_head_with_more_classes_fits_a_trunk_with_fewer(make, classifier, save, tmp_path):
    from transformers import ResNetForImageClassification

    config = classifier("resnet").config.to_dict() | {"num_labels": 7}
    wide = ResNetForImageClassification(type(classifier("resnet").config)(**config)).eval()
    task = make(head_from=str(save(wide, tmp_path / "wide")))
    pixels = next(task.batches("test", labelled=False)).inputs["pixel_values"]
    assert task.attach(classifier("resnet"))(pixels).shape == (12, 7)


def test_gradients_reach_the_trunk_past_an_expert_head(make, classifier, save, tmp_path):
    task = make(head_from=str(save(classifier("vit"), tmp_path / "expert")))
    model = task.attach(classifier("vit"))
    batch = next(task.batches("test", labelled=True))
    task.loss(model(**batch.inputs), batch.labels).backward()
    grads = {name: p.grad for name, p in model.trunk.named_parameters()}
    assert grads["vit.embeddings.cls_token"].abs().sum() > 0
    assert grads["classifier.weight"] is None


def test_head_patterns_that_match_nothing_are_refused(make, classifier, save, tmp_path):
    task = make(head_from=str(save(classifier("vit"), tmp_path / "expert")), head=["fc.*"])
    with pytest.raises(ConfigError, match="no tensors of a head"):
        task.attach(classifier("vit"))


def test_a_head_for_another_architecture_is_refused(make, classifier, save, tmp_path):
    task = make(head_from=str(save(classifier("resnet"), tmp_path / "expert")))
    with pytest.raises(TaskError, match="no place"):
        task.attach(classifier("vit"))


def test_models_without_enough_logits_are_explained(make):
    task = make()
    pixels = next(task.batches("test", labelled=False)).inputs["pixel_values"]
    with pytest.raises(TaskError, match="3 classes"):
        task.attach(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 2)))(pixels)


def test_the_size_a_model_wants_is_known(classifier, open_clip_dir):
    from fb_clip_tasks.sources.open_clip import OpenClip

    whole = OpenClip(path=str(open_clip_dir)).skeleton()
    assert size_of(classifier("vit")) == (32, 32)
    assert size_of(classifier("resnet")) is None
    assert size_of(whole) == size_of(whole.visual) == (32, 32)


# --- data sets read with the library `datasets` ---------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    for split, n in (("train", 4), ("test", 6)):
        for index in range(n):
            file = tmp_path / "images" / split / ("big_cat" if index % 2 else "ant") / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (250, 0, 0) if index % 2 else (0, 250, 0)).save(file)
    return tmp_path / "images"


def test_a_local_image_folder_is_read(folder, make, monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    reference = {"hub": "imagefolder", "data_dir": str(folder)}
    task = make(dataset=reference, image_size=16, mean=[0] * 3, std=[1] * 3)
    assert task.card().labels == ("ant", "big cat")
    assert task.card().splits == {"train": 4, "test": 6}
    for batch in task.batches("test", labelled=True, batch_size=4, seed=1):
        pixels = batch.inputs["pixel_values"]
        assert pixels.shape[1:] == (3, 16, 16)
        assert torch.equal((pixels[:, 0] > pixels[:, 1]).all((1, 2)).long(), batch.labels)
    assert len(task.fingerprint()) == 64


def test_without_the_library_the_way_to_install_it_is_given(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingCapability, match="datasets") as caught:
        make(dataset={"hub": "some/data"}).card()
    assert "fb-clip-tasks[hub]" in str(caught.value)


def test_classifiers_and_their_source_agree(make, classifier, save, tmp_path):
    source = ImageClassifier(path=str(save(classifier("resnet"), tmp_path / "m")))
    task = make()
    one = task.evaluate(task.attach(source.build(source.open())), EvalContext())
    two = task.evaluate(task.attach(classifier("resnet")), EvalContext())
    assert one.samples_sha256 == two.samples_sha256
