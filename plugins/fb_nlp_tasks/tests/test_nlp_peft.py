"""LoRA adapters: what the source gives is what peft merges, to the last bit that fp32 holds."""

from __future__ import annotations

import copy
import json
import threading
import warnings

import peft
import pytest
import torch
from fb_nlp_tasks.sources.peft_models import PeftSource
from fb_nlp_tasks.sources.recent import RecentTensors
from safetensors.torch import load_file, save_file

from fusionbench_core import (
    ConfigError,
    CorruptFile,
    IncompatibleModels,
    MissingCapability,
    NotFound,
    StateDictCheckpoint,
)

BERT = {"r": 4, "lora_alpha": 6, "target_modules": ["query", "dense"]}
CASES = {
    "plain": ("bert", "AutoModel", BERT),
    "rslora": ("bert", "AutoModel", {**BERT, "use_rslora": True}),
    "patterns": (
        "bert",
        "AutoModel",
        {**BERT, "rank_pattern": {"query": 2, "layer.1.output.dense": 3}, "alpha_pattern": {"query": 5}},
    ),
    "all biases": ("bert", "AutoModel", {**BERT, "bias": "all"}),
    "adapted biases": ("bert", "AutoModel", {**BERT, "bias": "lora_only"}),
    "bias of B": ("bert", "AutoModel", {**BERT, "lora_bias": True}),
    "embedding": ("bert", "AutoModel", {**BERT, "target_modules": ["word_embeddings", "value"]}),
    "whole modules": (
        "bert",
        "AutoModel",
        {**BERT, "modules_to_save": ["pooler"], "target_modules": ["query"]},
    ),
    "classifier": ("bert", "AutoModelForSequenceClassification", {**BERT, "task_type": "SEQ_CLS"}),
    "conv1d": (
        "gpt2",
        "AutoModelForCausalLM",
        {"r": 4, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"},
    ),
    "llama": (
        "llama",
        "AutoModelForCausalLM",
        {"r": 4, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"},
    ),
    "t5": (
        "t5",
        "AutoModelForSeq2SeqLM",
        {"r": 4, "target_modules": ["q", "wo"], "task_type": "SEQ_2_SEQ_LM"},
    ),
}


def save_adapter(base, directory, **settings):
    """Save a base and a random adapter over it; returns the adapted model."""
    base.save_pretrained(directory / "base")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, about what it saves
        torch.manual_seed(1)
        adapted = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(**settings))
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
        adapted.save_pretrained(directory / "adapter")
    return adapted


def open_saved(directory, **fields) -> PeftSource:
    return PeftSource(path=str(directory / "adapter"), base=str(directory / "base"), **fields)


@pytest.mark.parametrize("case", CASES)
def test_an_adapted_model_is_what_peft_merges(tiny, tmp_path, case):
    kind, auto, settings = CASES[case]
    adapted = save_adapter(tiny(kind, auto), tmp_path, **settings)
    expected = adapted.merge_and_unload().state_dict()
    source = open_saved(tmp_path)
    checkpoint = source.open()
    assert set(checkpoint.keys()) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(checkpoint.tensor(name), tensor, rtol=0, atol=2e-7, msg=name)
        assert checkpoint.info(name).dtype == checkpoint.tensor(name).dtype
    assert set(source.build(checkpoint).state_dict()) == set(expected)


def test_chunks_are_pieces_of_the_whole_tensor(tiny, tmp_path):
    save_adapter(tiny("bert", "AutoModel"), tmp_path, **BERT)
    checkpoint = open_saved(tmp_path).open()
    for name in checkpoint:
        whole = checkpoint.tensor(name).reshape(-1)
        assert torch.equal(checkpoint.chunk(name, 5, 17), whole[5:17])


def test_a_half_precision_base_gives_adapted_tensors_in_fp32_and_leaves_the_others(tiny, tmp_path):
    base = tiny("bert", "AutoModel")
    adapted = save_adapter(base, tmp_path, **BERT)
    half = {name: tensor.half() for name, tensor in base.state_dict().items()}
    save_file(half, tmp_path / "base" / "model.safetensors")
    checkpoint = open_saved(tmp_path).open()
    name = "encoder.layer.0.attention.self.query.weight"
    module = adapted.base_model.model.encoder.layer[0].attention.self.query
    delta = module.lora_B["default"].weight.double() @ module.lora_A["default"].weight.double() * (6 / 4)
    expected = half[name].double() + delta
    assert checkpoint.info(name).dtype == torch.float32
    torch.testing.assert_close(checkpoint.tensor(name).double(), expected, rtol=0, atol=1e-6)
    assert checkpoint.info("embeddings.word_embeddings.weight").dtype == torch.float16


def test_the_trunk_of_an_adapted_classifier_opens_as_an_encoder(tiny, tmp_path):
    kind, auto, settings = CASES["classifier"]
    adapted = save_adapter(tiny(kind, auto), tmp_path, **settings)
    expected = adapted.merge_and_unload().bert.state_dict()
    checkpoint = open_saved(tmp_path, base_source="text_encoder").open()
    assert set(checkpoint.keys()) == set(expected)
    for name in expected:
        torch.testing.assert_close(checkpoint.tensor(name), expected[name], rtol=0, atol=2e-7)


def test_a_classifier_that_only_the_adapter_has_completes_a_bare_base(tiny, tmp_path):
    kind, auto, settings = CASES["classifier"]
    classifier = tiny(kind, auto)
    adapted = save_adapter(classifier, tmp_path, **settings)
    classifier.bert.save_pretrained(tmp_path / "base")
    expected = adapted.merge_and_unload().state_dict()
    checkpoint = open_saved(tmp_path).open()
    torch.testing.assert_close(checkpoint.tensor("classifier.weight"), expected["classifier.weight"])


def test_an_artefact_of_adapted_models_is_read_as_a_whole_model(tiny, tmp_path):
    save_adapter(tiny("bert", "AutoModel"), tmp_path, **BERT)
    source = open_saved(tmp_path)
    checkpoint = source.open()
    out = tmp_path / "out"
    out.mkdir()
    save_file({name: checkpoint.tensor(name) for name in checkpoint}, out / "model.safetensors")
    for file in source.assets():
        (out / file.name).write_bytes(file.read_bytes())
    assert source.for_artefact(out).open().fingerprint() == checkpoint.fingerprint()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"use_dora": True}, "use_dora"), ({"trainable_token_indices": [1, 2]}, "trainable_token_indices")],
)
def test_other_kinds_of_adapters_are_refused_by_name(tiny, tmp_path, settings, reason):
    base = tiny("bert", "AutoModel")
    save_adapter(base, tmp_path, r=4, target_modules=["query"], **settings)
    with pytest.raises(MissingCapability, match="plain LoRA") as caught:
        open_saved(tmp_path).open()
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        ({"peft_type": "IA3"}, MissingCapability),
        ({"init_lora_weights": "pissa_niter_4"}, MissingCapability),
        ({"lora_alpha": None}, CorruptFile),
        ({"base_model_name_or_path": "/nowhere/at/all"}, NotFound),
    ],
)
def test_unfit_settings_are_refused(tiny, tmp_path, edit, error):
    save_adapter(tiny("bert", "AutoModel"), tmp_path, **BERT, task_type="FEATURE_EXTRACTION")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **edit}))
    base = None if "base_model_name_or_path" in edit else str(tmp_path / "base")
    with pytest.raises(error):
        PeftSource(path=str(tmp_path / "adapter"), base=base).open()


def test_an_adapter_without_any_base_asks_for_one(tiny, tmp_path):
    save_adapter(tiny("bert", "AutoModel"), tmp_path, **BERT)
    with pytest.raises(ConfigError, match="which base"):
        PeftSource(path=str(tmp_path / "adapter")).open()


def test_an_adapter_of_a_larger_base_is_refused(tiny, tmp_path):
    save_adapter(tiny("bert", "AutoModel"), tmp_path, **BERT)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    state = load_file(file)
    wide = {name: torch.zeros(4, 48) if "query.lora_A" in name else tensor for name, tensor in state.items()}
    save_file(wide, file)
    with pytest.raises(IncompatibleModels, match="another shape"):
        open_saved(tmp_path).open()


def test_a_factor_without_its_partner_is_a_corrupt_file(tiny, tmp_path):
    save_adapter(tiny("bert", "AutoModel"), tmp_path, **BERT)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    state = load_file(file)
    del state["base_model.model.pooler.dense.lora_B.weight"]
    save_file(state, file)
    with pytest.raises(CorruptFile, match="missing"):
        open_saved(tmp_path).open()


def test_missing_weights_and_missing_settings_are_not_found(tiny, tmp_path):
    save_adapter(tiny("bert", "AutoModel"), tmp_path, **BERT)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(NotFound):
        open_saved(tmp_path).open()
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    with pytest.raises(NotFound):
        open_saved(tmp_path).open()
    assert not PeftSource.recognises(str(tmp_path / "adapter"))


def test_an_adapter_on_one_side_of_a_tie_is_refused(tiny, tmp_path):
    base = tiny("llama", "AutoModelForCausalLM", tie_word_embeddings=True)
    save_adapter(base, tmp_path, r=4, target_modules=["embed_tokens"], task_type="CAUSAL_LM")
    with pytest.raises(IncompatibleModels, match="shares its weights"):
        open_saved(tmp_path).open()


def test_settings_and_factors_change_the_identity_and_the_fingerprint(tiny, tmp_path):
    save_adapter(tiny("bert", "AutoModel"), tmp_path, **BERT)
    first = open_saved(tmp_path).open()
    before = first.identity(), first.fingerprint()
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "lora_alpha": 7}))
    second = open_saved(tmp_path).open()
    assert second.identity() != before[0]
    assert second.fingerprint() != before[1]
    assert StateDictCheckpoint({n: second.tensor(n) for n in second}).fingerprint() == second.fingerprint()


def test_threads_that_ask_for_one_tensor_at_once_have_it_computed_once():
    calls = []
    started = threading.Barrier(4)

    def compute(name: str) -> torch.Tensor:
        calls.append(name)
        return torch.ones(3)

    recent = RecentTensors(compute, size=2)

    def ask() -> None:
        started.wait()
        recent["a"]

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == ["a"]
    recent["b"], recent["c"], recent["a"]
    assert calls == ["a", "b", "c", "a"]
