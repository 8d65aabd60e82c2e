"""The embedded benchmark: its data are what the cards say, its presets fit the registry."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
import torch
from fb_nlp_tasks import plugin
from fb_nlp_tasks.sources.peft_models import PeftSource
from fb_nlp_tasks.sources.text_models import TextEncoder
from fb_nlp_tasks.tasks.text_classification import MINILM, TextClassification
from fb_nlp_tasks.tasks.texts import EMBEDDED, canonical, embedded_names, read_jsonl

from fusionbench_core import EvalContext
from fusionbench_core.config.compose import compose
from fusionbench_core.config.schema import RunConfig
from fusionbench_core.pools.config import build_pool
from fusionbench_core.registry import default_registry
from fusionbench_core.tasks.pool import build_task_pool

NAMES = embedded_names()


@pytest.fixture(scope="module")
def presets() -> RunConfig:
    return RunConfig.model_validate(compose(config_name="embedded_text").values)


def test_there_are_six_tasks():
    assert len(NAMES) == 6


@pytest.mark.parametrize("name", NAMES)
def test_the_data_are_what_the_card_says(name):
    data = read_jsonl(EMBEDDED / f"{name}.jsonl.gz")
    assert set(data.splits) == set(data.card["splits"])
    for split, facts in data.card["splits"].items():
        part = data.splits[split]
        records = [
            {"split": split, "text": text, "label": label} for text, label in zip(part.texts, part.labels)
        ]
        assert hashlib.sha256(canonical(records)).hexdigest() == facts["sha256"]
        assert len(part) == facts["n"]
        counts = Counter(part.labels)
        assert [counts[label] for label in range(len(data.labels))] == facts["per_label"]
    assert len(data.card["prompts"]) == len(data.labels)
    assert data.card["licence"]


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_in_two_splits(name):
    splits = read_jsonl(EMBEDDED / f"{name}.jsonl.gz").splits
    seen = Counter(text for part in splits.values() for text in set(part.texts))
    assert max(seen.values()) == 1


def test_minilm_is_well_above_chance_without_training():
    source = TextEncoder(path=MINILM)
    task = TextClassification(name="wordnet", dataset="wordnet")
    model = task.attach(source.build(source.open()))
    result = task.evaluate(model, EvalContext(limit=100))
    assert result.metrics["accuracy"] > 0.25  # of 24 classes


def test_an_expert_is_better_at_its_task_than_the_pretrained_encoder():
    path = "pkg://fb_nlp_tasks/embedded/experts/wordnet"
    expert = PeftSource(path=path, base=MINILM, base_source="text_encoder")
    base = TextEncoder(path=MINILM)
    task = TextClassification(name="wordnet", dataset="wordnet")
    scores = []
    for source in (base, expert):
        model = task.attach(source.build(source.open()))
        scores.append(task.evaluate(model, EvalContext(limit=100)).metrics["accuracy"])
    assert scores[1] > scores[0] + 0.1


def test_the_plugin_declares_without_importing_anything_heavy():
    import subprocess
    import sys

    code = (
        "import sys, fb_nlp_tasks.plugin as p\n"
        "list(p.fb_model_sources()), list(p.fb_tasks()), list(p.fb_configs())\n"
        "print(sorted({'torch', 'transformers', 'peft', 'datasets', 'pydantic'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("record", [*plugin.SOURCES, *plugin.TASKS], ids=lambda record: record.name)
def test_every_record_names_a_class_that_names_it_back(record):
    registry = default_registry()
    kind = "source" if record in plugin.SOURCES else "task"
    assert registry.load(kind, f"nlp_tasks/{record.name}").record == record


def test_the_presets_compose_and_build(presets):
    registry = default_registry()
    pool = build_pool(presets.modelpool, registry)
    tasks = build_task_pool(presets.taskpool or {}, registry)
    assert set(pool.names) == set(tasks.tasks) == set(NAMES)
    assert isinstance(pool.base and pool.base.source, TextEncoder)


def test_the_preset_s_experts_differ_from_the_base_where_they_were_adapted_only(presets):
    pool = build_pool(presets.modelpool, default_registry())
    base = pool.checkpoint()
    for name in pool:
        expert = pool.checkpoint(name)
        assert set(expert.keys()) == set(base.keys())
        changed = {
            key for key in base if not torch.equal(base.tensor(key).float(), expert.tensor(key).float())
        }
        assert changed
        assert all(key.startswith("encoder.layer.") and key.endswith(".weight") for key in changed)
