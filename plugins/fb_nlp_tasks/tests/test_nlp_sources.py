"""Transformers sources: names, values and outputs are those of from_pretrained."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from fb_nlp_tasks.sources.text_models import BY_NAME, CausalLM, Seq2SeqLM, TextClassifier, TextEncoder
from safetensors.torch import load_file, save_file

from fusionbench_core import (
    CorruptFile,
    IncompatibleModels,
    MissingCapability,
    NotFound,
    Offline,
    StateDictCheckpoint,
    UntrustedFormat,
)

CASES = {
    "bert": ("bert", "text_encoder", {}),
    "bert classifier": ("bert", "text_classifier", {"num_labels": 3}),
    "llama tied": ("llama", "causal_lm", {"tie_word_embeddings": True}),
    "llama untied": ("llama", "causal_lm", {"tie_word_embeddings": False}),
    "gpt2": ("gpt2", "causal_lm", {}),
    "gpt2 trunk": ("gpt2", "text_encoder", {}),
    "t5": ("t5", "seq2seq_lm", {}),
    "mixtral": ("mixtral", "causal_lm", {}),
}


@pytest.fixture(params=CASES, scope="module")
def saved(tiny, request, tmp_path_factory):
    """A source over a saved model, and the model as from_pretrained gives it."""
    kind, name, settings = CASES[request.param]
    cls = BY_NAME[name]
    directory = tmp_path_factory.mktemp("model")
    tiny(kind, cls.auto, **settings).save_pretrained(directory)
    reference = getattr(transformers, cls.auto).from_pretrained(directory, dtype=torch.float32).eval()
    # The order in which products are summed may follow where a tensor begins: anywhere in a mapped
    # file, while our tensors are aligned, as those of a copy are.
    return cls(path=str(directory)), copy.deepcopy(reference)


def test_the_checkpoint_has_the_names_shapes_and_values_of_from_pretrained(saved):
    source, reference = saved
    checkpoint, state = source.open(), reference.state_dict()
    assert set(checkpoint.keys()) == set(state)
    for name, tensor in state.items():
        assert checkpoint.info(name).shape == tuple(tensor.shape)
        assert torch.equal(checkpoint.tensor(name), tensor), name
        assert torch.equal(checkpoint.chunk(name, 1, 3), tensor.reshape(-1)[1:3]), name


def test_the_live_module_computes_what_from_pretrained_computes(saved):
    source, reference = saved
    module = source.build(source.open())
    inputs = {"input_ids": torch.tensor([[5, 9, 2, 7]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    if reference.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[1, 2]])
    with torch.no_grad():
        got, expected = module(**inputs)[0], reference(**inputs)[0]
    assert not module.training
    assert torch.equal(got, expected)


def test_computed_buffers_are_those_of_from_pretrained(saved):
    source, reference = saved
    buffers = dict(source.skeleton().named_buffers())
    assert buffers.keys() == dict(reference.named_buffers()).keys()
    for name, buffer in reference.named_buffers():
        assert torch.equal(buffers[name], buffer), name


def test_ties_are_aliases_in_the_checkpoint_and_shared_in_the_module(saved):
    source, _ = saved
    checkpoint = source.open()
    live = source.build(checkpoint).state_dict(keep_vars=True)
    shared = {(a, b) for a in live for b in live if a != b and live[a] is live[b]}
    assert {frozenset(pair) for pair in checkpoint.aliases.items()} <= {frozenset(pair) for pair in shared}
    assert {name for pair in shared for name in pair} == {*checkpoint.aliases, *checkpoint.aliases.values()}


def test_a_written_state_loads_with_from_pretrained(saved, tmp_path):
    source, reference = saved
    checkpoint = source.open()
    state = {name: checkpoint.tensor(name) + 1 for name in checkpoint if name not in checkpoint.aliases}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for file in source.assets():
        shutil.copy(file, tmp_path)
    again = type(reference).from_pretrained(tmp_path, dtype=torch.float32)
    for name, tensor in reference.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor + 1), name


def test_making_a_skeleton_uses_no_global_randomness(tiny_encoder):
    before = torch.get_rng_state()
    TextEncoder(path=str(tiny_encoder)).skeleton()
    assert torch.equal(torch.get_rng_state(), before)


def test_shards_give_the_same_checkpoint_as_one_file(tiny, tmp_path):
    model = tiny("llama", "AutoModelForCausalLM", tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="10KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    one, many = (CausalLM(path=str(tmp_path / name)).open() for name in ("one", "many"))
    assert one.fingerprint() == many.fingerprint()


def test_the_trunk_of_a_classifier_opens_as_an_encoder(tiny, tmp_path):
    classifier = tiny("bert", "AutoModelForSequenceClassification", num_labels=3)
    classifier.save_pretrained(tmp_path)
    checkpoint = TextEncoder(path=str(tmp_path)).open()
    trunk = classifier.bert.state_dict()
    assert set(checkpoint.keys()) == set(trunk)
    assert all(torch.equal(checkpoint.tensor(name), trunk[name]) for name in trunk)
    assert checkpoint.dropped == ("classifier.bias", "classifier.weight")


def test_a_trunk_saved_without_its_head_gets_the_prefix_of_the_headed_class(tiny, tmp_path):
    model = tiny("gpt2", "AutoModelForCausalLM")
    model.transformer.save_pretrained(tmp_path)
    checkpoint = CausalLM(path=str(tmp_path)).open()
    assert set(checkpoint.keys()) == set(model.state_dict())
    assert checkpoint.aliases == {"lm_head.weight": "transformer.wte.weight"}


def test_a_pooler_that_the_file_lacks_is_left_out_of_the_architecture(tiny, tmp_path):
    tiny("bert", "AutoModelForMaskedLM").save_pretrained(tmp_path)
    source = TextEncoder(path=str(tmp_path))
    assert not any("pooler" in name for name in source.open())
    assert set(source.build(source.open()).state_dict()) == set(source.open())


def test_weights_that_differ_although_the_config_ties_them_stay_apart(tiny, tmp_path):
    model = tiny("llama", "AutoModelForCausalLM", tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    _edit(tmp_path / "config.json", tie_word_embeddings=True)
    source = CausalLM(path=str(tmp_path))
    built = source.build(source.open())
    assert source.open().aliases == {}
    assert torch.equal(built.lm_head.weight, model.lm_head.weight)
    assert torch.equal(built.model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_a_torch_file_with_both_tied_names_is_tied(tiny, tmp_path):
    model = tiny("llama", "AutoModelForCausalLM", tie_word_embeddings=True)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert CausalLM(path=str(tmp_path)).open().aliases == {"lm_head.weight": "model.embed_tokens.weight"}


def test_a_base_without_a_classifier_says_how_to_go_on(tiny, tmp_path):
    tiny("bert", "AutoModel").save_pretrained(tmp_path)
    with pytest.raises(IncompatibleModels) as caught:
        TextClassifier(path=str(tmp_path)).open()
    assert "classifier.weight" in str(caught.value)
    assert "head_from" in str(caught.value)


def test_padded_rows_are_kept_as_they_are_and_refused_by_a_smaller_module(tiny, tmp_path):
    tiny("llama", "AutoModelForCausalLM", tie_word_embeddings=True).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    padded = torch.cat([state["model.embed_tokens.weight"], torch.zeros(8, 32)])
    save_file({**state, "model.embed_tokens.weight": padded}, tmp_path / "model.safetensors")
    source = CausalLM(path=str(tmp_path))
    assert source.open().info("lm_head.weight").shape == (72, 32)
    with pytest.raises(IncompatibleModels, match="do not fit"):
        source.build(source.open())


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda d: (d / "config.json").unlink(), NotFound),
        (lambda d: (d / "config.json").write_text("{"), CorruptFile),
        (lambda d: (d / "config.json").write_text("[]"), CorruptFile),
        (lambda d: (d / "model.safetensors").unlink(), NotFound),
        (lambda d: (d / "model.safetensors").write_bytes(b"\x08"), CorruptFile),
        (lambda d: _edit(d / "config.json", model_type="nobody_knows"), MissingCapability),
        (lambda d: _edit(d / "config.json", quantization_config={"bits": 4}), MissingCapability),
        (
            lambda d: _edit(d / "config.json", model_type="own", auto_map={"AutoConfig": "own.Config"}),
            UntrustedFormat,
        ),
    ],
    ids=["no config", "bad json", "no object", "no weights", "truncated", "unknown", "quantised", "code"],
)
def test_spoiled_directories_give_the_core_s_errors(tiny_encoder, tmp_path, spoil, error):
    directory = shutil.copytree(tiny_encoder, tmp_path / "model")
    spoil(directory)
    with pytest.raises(error):
        TextEncoder(path=str(directory)).open()


def test_a_hub_id_that_cannot_be_reached_says_what_to_download_and_where_it_was_looked_for(
    tmp_path, monkeypatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Offline) as caught:
        CausalLM(path="someone/some-model", revision="v2").open()
    assert "hf download someone/some-model --revision v2" in str(caught.value)
    assert constants.HF_HUB_CACHE in str(caught.value)


def test_sources_recognise_their_own_kind_only(tiny, tmp_path):
    kinds = {"text_encoder": "bert", "causal_lm": "llama", "seq2seq_lm": "t5", "text_classifier": "bert"}
    for name, kind in kinds.items():
        tiny(kind, BY_NAME[name].auto).save_pretrained(tmp_path / name)
    for name in kinds:
        found = [other for other, cls in BY_NAME.items() if cls.recognises(str(tmp_path / name))]
        assert found == [name]
    tiny("gpt2", "AutoModelForCausalLM").save_pretrained(tmp_path / "gpt2")
    assert [other for other, cls in BY_NAME.items() if cls.recognises(str(tmp_path / "gpt2"))] == [
        "causal_lm"
    ]
    assert not any(cls.recognises("someone/some-model") for cls in BY_NAME.values())
    assert not any(cls.recognises(str(tmp_path / "nothing")) for cls in BY_NAME.values())


def test_the_source_of_an_artefact_reads_the_artefact_and_not_the_original(tiny_encoder, tmp_path):
    source = TextEncoder(path=str(tiny_encoder))
    checkpoint = source.open()
    doubled = {name: checkpoint.tensor(name) * 2 for name in checkpoint}
    save_file(doubled, tmp_path / "model.safetensors")
    for file in source.assets():
        shutil.copy(file, tmp_path)
    again = source.for_artefact(tmp_path).open()
    assert again.fingerprint() == StateDictCheckpoint(doubled).fingerprint()


def test_assets_hold_config_tokenizer_and_notices(tiny_encoder, tmp_path):
    directory = shutil.copytree(tiny_encoder, tmp_path / "model")
    (directory / "NOTICE").write_text("by someone")
    (directory / "code.py").write_text("")
    names = {file.name for file in TextEncoder(path=str(directory)).assets()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "NOTICE"} <= names
    assert "code.py" not in names
    assert "model.safetensors" not in names


def test_generation_settings_travel_with_language_models(tiny, tmp_path):
    tiny("t5", "AutoModelForSeq2SeqLM").save_pretrained(tmp_path)
    assert "generation_config.json" in {file.name for file in Seq2SeqLM(path=str(tmp_path)).assets()}


def _edit(file: Path, **values) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_an_architecture_is_made_beside_weights_that_a_builder_put_elsewhere(tiny, tmp_path):
    tiny("bert", "AutoModelForMaskedLM").save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    first = "bert.encoder.layer.0.intermediate.dense."
    moved = {name.replace(first, "experts.0."): tensor for name, tensor in state.items()}
    save_file(moved, tmp_path / "model.safetensors", metadata={"format": "pt"})
    source = TextEncoder(path=str(tmp_path))
    names = set(source.skeleton().state_dict())
    assert first.removeprefix("bert.") + "weight" in names
    assert not any("pooler" in name for name in names)
    with pytest.raises(IncompatibleModels, match="lack tensors"):
        source.open()
