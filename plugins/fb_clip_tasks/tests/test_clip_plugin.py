"""What the plugin declares, its presets, and the embedded benchmark."""

from __future__ import annotations

import functools
import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fb_clip_tasks import plugin
from fb_clip_tasks.sources.clip_vision import ClipVision
from fb_clip_tasks.tasks.images import EMBEDDED, ArrayImages
from fb_clip_tasks.tasks.zero_shot import ZeroShotImageClassification

from fusionbench_core import EvalContext, Offline, TaskResult, resolve_path
from fusionbench_core.config import compose
from fusionbench_core.pools.config import build_pool
from fusionbench_core.registry import default_registry
from fusionbench_core.tasks.pool import build_task_pool

TASKS = ("mnist", "fashion_mnist", "letters", "digits", "emoji", "clipart")
ROOT = Path(str(importlib.resources.files("fb_clip_tasks")))
TRUNK = ROOT / "embedded" / "trunk" / "model.safetensors"
needs_trunk = pytest.mark.skipif(not TRUNK.is_file(), reason="the embedded trunk has not been built")


def test_declaring_imports_nothing_heavy():
    code = (
        "import sys, fb_clip_tasks.plugin as p; list(p.fb_model_sources()); list(p.fb_tasks()); "
        "list(p.fb_configs()); "
        "print(*(m for m in ('torch', 'transformers', 'numpy', 'pydantic', 'PIL') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("record", [*plugin.SOURCES, *plugin.TASKS], ids=lambda record: record.name)
def test_each_record_and_its_class_know_each_other(record):
    registry = default_registry()
    cls = registry.resolve(record)
    assert cls.record == record
    assert all(field.description for field in cls.model_fields.values())


# --- presets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["base-patch32", "base-patch16", "large-patch14"])
def test_fusionbench_pools_compose_and_are_offline_only_when_opened(size, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    choices = ["method=task_arithmetic", f"modelpool=clip-vit-{size}_TA8", "taskpool=null"]
    values = compose(choices, config_name="embedded_vision").values
    pool = build_pool(values["modelpool"], default_registry())
    assert pool.names == ("sun397", "stanford-cars", "resisc45", "eurosat", "svhn", "gtsrb", "mnist", "dtd")
    assert "visual_projection.weight" not in pool.scope
    with pytest.raises(Offline, match=f"tanganke/clip-vit-{size}_sun397"):
        pool.checkpoint("sun397")


@pytest.mark.parametrize(
    ("preset", "clip"),
    [("TA8", "base-patch32"), ("TA8_B16", "base-patch16"), ("TA8_L14", "large-patch14")],
)
def test_fusionbench_task_pools_compose(preset, clip):
    choices = [f"taskpool=clip-vit-classification_{preset}"]
    section = compose(choices, config_name="embedded_vision").values["taskpool"]
    pool = build_task_pool(section, default_registry())
    assert list(pool)[1:3] == ["stanford-cars", "resisc45"]
    counts = {name: len(task.templates or ()) for name, task in pool.tasks.items()}
    # The numbers of templates that FusionBench uses.
    assert counts == {
        "sun397": 2,
        "stanford-cars": 8,
        "resisc45": 18,
        "eurosat": 3,
        "svhn": 1,
        "gtsrb": 3,
        "mnist": 1,
        "dtd": 8,
    }
    assert {task.text.path for task in pool.tasks.values()} == {f"openai/clip-vit-{clip}"}
    assert len(pool["gtsrb"].labels) == 43
    assert len(pool["eurosat"].labels) == 10


def test_the_embedded_presets_name_what_is_embedded():
    values = compose(config_name="embedded_vision").values
    assert set(values["modelpool"]["models"]) == set(values["taskpool"]["tasks"]) == set(TASKS)
    assert values["method"]["name"] == "merging/task_arithmetic"
    data = resolve_path(EMBEDDED)
    assert {file.stem for file in data.glob("*.npz")} == set(TASKS)
    assert list(build_task_pool(values["taskpool"], default_registry())) == list(values["taskpool"]["tasks"])


# --- the embedded benchmark -----------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_embedded_data_fits_its_card(name):
    data = ArrayImages.at(name)
    assert data.card.name == name
    assert data.card.licence != "unknown"
    # Serving a split compares it with the hash on the card.
    for split, facts in data.card.splits.items():
        assert facts.sha256
        assert len(data.labels(split)) == facts.n
        assert set(data.labels(split).tolist()) == set(range(len(data.card.labels)))


@pytest.mark.parametrize("name", TASKS)
def test_embedded_splits_share_no_image(name):
    data = ArrayImages.at(name)
    seen: dict[bytes, str] = {}
    for split, facts in data.card.splits.items():
        for pixels in data.pixels(split, torch.arange(facts.n)).mul(255).byte():
            assert seen.setdefault(pixels.numpy().tobytes(), split) == split


@needs_trunk
def test_the_trunk_is_recognised_and_in_half_precision():
    path = "pkg://fb_clip_tasks/embedded/trunk"
    assert ClipVision.recognises(path)
    checkpoint = ClipVision(path=path).open()
    assert {str(checkpoint.info(name).dtype) for name in checkpoint} == {"torch.float16"}


@pytest.fixture(scope="module")
def measure():
    """Measure an embedded model on the validation data of a task, each once."""

    @functools.cache
    def measure(model: str, name: str) -> TaskResult:
        source = ClipVision(path=f"pkg://fb_clip_tasks/embedded/{model}")
        task = ZeroShotImageClassification(name=name, dataset=name)
        trunk = source.build(source.open())
        return task.evaluate(task.attach(trunk), EvalContext(split="validation", batch_size=125))

    return measure


@needs_trunk
@pytest.mark.parametrize("name", TASKS)
def test_the_trunk_is_better_than_chance_without_training(name, measure):
    chance = 1 / len(ArrayImages.at(name).card.labels)
    assert measure("trunk", name).intervals["accuracy"][0] > chance


@needs_trunk
@pytest.mark.parametrize("name", TASKS)
def test_each_expert_beats_the_trunk_on_its_task(name, measure):
    if not (ROOT / "embedded" / "experts" / name).is_dir():
        pytest.skip("this expert has not been built")
    expert = measure(f"experts/{name}", name).metrics["accuracy"]
    assert expert > measure("trunk", name).metrics["accuracy"]


# --- the README -----------------------------------------------------------------------------------

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_states_sizes_as_the_cards_do():
    text = README.read_text(encoding="utf-8")
    for name in TASKS:
        card = ArrayImages.at(name).card
        sizes = " / ".join(str(card.splits[split].n) for split in ("train", "validation", "test"))
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` "))
        assert f"| {len(card.labels)} | {sizes} |" in row
        assert all(licence in row for licence in card.licence.split(" AND "))


def test_the_yaml_of_the_readme_is_valid(monkeypatch, tmp_path):
    import re

    import yaml

    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    sections = [yaml.safe_load(block) for block in blocks]
    assert len(sections) == 3
    for name in ("expert", "mnist", "a.safetensors", "b.pt"):
        (tmp_path / name).mkdir()
    for section in sections:
        if "modelpool" in section:
            assert len(build_pool(section["modelpool"], default_registry())) == 2
        else:
            assert len(list(build_task_pool(section["taskpool"], default_registry()))) == 3
