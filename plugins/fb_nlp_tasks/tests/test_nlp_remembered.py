"""Names that were matched once are matched again without transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from fb_nlp_tasks.sources.text_models import CausalLM
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

MERGE = """
import sys

from fb_nlp_tasks.sources.text_models import CausalLM
opened = {path: CausalLM(path=path).open() for path in sys.argv[1:]}
for path, checkpoint in opened.items():
    assert checkpoint.aliases == {"lm_head.weight": "model.embed_tokens.weight"}, checkpoint.aliases
    print(len(checkpoint), checkpoint.identity().count("LlamaForCausalLM"))
print("transformers" in sys.modules)
"""


@pytest.fixture
def models(tmp_path):
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    for name in ("base", "expert"):
        AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / name)
    return tmp_path


def opened(cache, *paths):
    done = subprocess.run(
        [sys.executable, "-c", MERGE, *map(str, paths)],
        env={**os.environ, "FB_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.fixture
def remembered(tmp_path, monkeypatch):
    """The files in which names are kept."""
    monkeypatch.setenv("FB_CACHE_HOME", str(tmp_path / "cache"))
    return lambda: sorted((tmp_path / "cache" / "names").glob("*.json"))


def test_a_second_process_opens_models_of_known_names_without_transformers(models, remembered, tmp_path):
    kept = CausalLM(path=str(models / "base")).open()
    again = opened(tmp_path / "cache", models / "base", models / "expert")
    assert again == [str(len(kept)), "1"] * 2 + ["False"]


def test_another_config_is_matched_anew(models, remembered):
    CausalLM(path=str(models / "base")).open()
    CausalLM(path=str(models / "expert")).open()
    assert len(remembered()) == 1
    config = models / "expert" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "rms_norm_eps": 0.5}))
    CausalLM(path=str(models / "expert")).open()
    assert len(remembered()) == 2


def test_ties_that_depend_on_values_are_looked_at_each_time(models, remembered):
    file = models / "base" / "model.safetensors"
    state = load_file(file)
    save_file({**state, "lm_head.weight": state["model.embed_tokens.weight"].clone()}, file, {"format": "pt"})
    assert CausalLM(path=str(models / "base")).open().aliases
    assert remembered() == []


def test_a_damaged_memory_is_not_used_and_mended(models, remembered):
    names = CausalLM(path=str(models / "base")).open().keys()
    [file] = remembered()
    whole = file.read_text()
    file.write_text("{}")
    assert CausalLM(path=str(models / "base")).open().keys() == names
    assert file.read_text() == whole
