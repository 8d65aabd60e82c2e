"""Text classification: heads, batches, splits and fingerprints, on tiny models and texts."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from fb_nlp_tasks.sources.text_models import TextClassifier, TextEncoder
from fb_nlp_tasks.tasks.prompt_head import prompt_head
from fb_nlp_tasks.tasks.text_classification import TextClassification
from fb_nlp_tasks.tasks.tokenised import tokenizer_directory
from pydantic import ValidationError
from torch.nn import functional as F

from fusionbench_core import (
    ConfigError,
    CorruptFile,
    EvalContext,
    IncompatibleModels,
    NotFound,
    Offline,
    Predictor,
    TaskError,
)
from fusionbench_core.tasks.attach import attach


@pytest.fixture
def task(tiny_texts, tiny_encoder) -> TextClassification:
    return TextClassification(name="films", dataset=str(tiny_texts), encoder=str(tiny_encoder))


@pytest.fixture(scope="session")
def trunk(tiny_encoder):
    source = TextEncoder(path=str(tiny_encoder))
    return source.build(source.open())


def test_logits_are_scaled_cosines_of_mean_pooled_texts_and_prompts(task, trunk, tiny_encoder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)

    def embedded(text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        return F.normalize(trunk(input_ids=ids).last_hidden_state[0].mean(0), dim=0)

    model = task.attach(trunk)
    batch = next(task.batches("test", labelled=True, batch_size=16))
    with torch.no_grad():
        logits = model(**batch.inputs)
        prompts = torch.stack([embedded("a good film"), embedded("a bad film")])
        for row, position in enumerate(batch.indices.tolist()):
            expected = 20 * prompts @ embedded(task.data.splits["test"].texts[position])
            torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-4)


def test_several_prompts_a_label_are_averaged(tiny_encoder):
    source = TextEncoder(path=str(tiny_encoder))
    one, other = (prompt_head(source, [text], 8)[0] for text in ("a good film", "very fine"))
    both = prompt_head(source, [("a good film", "very fine")], 8)[0]
    torch.testing.assert_close(both, F.normalize((one + other) / 2, dim=0))


def test_the_head_is_cached_by_content_and_a_spoiled_cache_is_made_anew(tiny_encoder, private_cache):
    source = TextEncoder(path=str(tiny_encoder))
    head = prompt_head(source, ["good", "bad"], 8)
    (file,) = (private_cache / "heads").iterdir()
    assert torch.equal(prompt_head(source, ["good", "bad"], 8), head)
    file.write_bytes(b"spoiled")
    assert torch.equal(prompt_head(source, ["good", "bad"], 8), head)
    prompt_head(source, ["good", "awful"], 8)
    assert len(list((private_cache / "heads").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_error(tiny_encoder, tmp_path):
    (tmp_path / "file").write_text("")
    head = prompt_head(TextEncoder(path=str(tiny_encoder)), ["good"], 8, cache=tmp_path / "file" / "heads")
    assert head.shape == (1, 32)


def test_attaching_copies_nothing_and_adds_nothing_to_the_state(task, trunk):
    model = task.attach(trunk)
    assert model.trunk is trunk
    assert set(model.state_dict()) == {f"trunk.{name}" for name in trunk.state_dict()}


def test_an_expert_s_head_over_its_own_trunk_gives_the_expert_s_logits(
    tiny, with_tokenizer, tiny_texts, tmp_path
):
    expert = tiny("bert", "AutoModelForSequenceClassification", num_labels=2)
    directory = str(with_tokenizer(expert, tmp_path / "expert"))
    task = TextClassification(name="films", dataset=str(tiny_texts), head="expert", head_from=directory)
    encoder = TextEncoder(path=directory)
    trunk = encoder.build(encoder.open())
    model = task.attach(trunk).eval()
    assert model.trunk is trunk
    for batch in task.batches("test", labelled=False, batch_size=5):
        with torch.no_grad():
            assert torch.equal(model(**batch.inputs), expert(**batch.inputs).logits)


def test_an_expert_s_head_pools_as_its_class_does_where_that_is_the_last_token(
    tiny, with_tokenizer, tiny_texts, tmp_path
):
    expert = tiny("gpt2", "AutoModelForSequenceClassification", num_labels=2)
    directory = str(with_tokenizer(expert, tmp_path / "expert"))
    task = TextClassification(name="films", dataset=str(tiny_texts), head="expert", head_from=directory)
    encoder = TextEncoder(path=directory)
    model = task.attach(encoder.build(encoder.open())).eval()
    expert.config.pad_token_id = 0
    batch = next(task.batches("test", labelled=False, batch_size=16))
    with torch.no_grad():
        assert torch.equal(model(**batch.inputs), expert(**batch.inputs).logits)


def test_a_head_does_not_go_on_a_trunk_of_another_width(tiny, with_tokenizer, tiny_texts, tmp_path):
    expert = tiny("bert", "AutoModelForSequenceClassification", num_labels=2)
    directory = str(with_tokenizer(expert, tmp_path / "expert"))
    task = TextClassification(name="films", dataset=str(tiny_texts), head="expert", head_from=directory)
    narrow = tiny("llama", "AutoModel")
    narrow.config.hidden_size = 16
    with pytest.raises(IncompatibleModels):
        task.attach(narrow)


def test_a_whole_classifier_may_give_its_own_logits(tiny, with_tokenizer, tiny_texts, tmp_path):
    expert = tiny("bert", "AutoModelForSequenceClassification", num_labels=2)
    directory = str(with_tokenizer(expert, tmp_path / "expert"))
    source = TextClassifier(path=directory)
    task = TextClassification(name="films", dataset=str(tiny_texts), head="model", tokenizer=directory)
    result = task.evaluate(task.attach(source.build(source.open())), EvalContext())
    assert result.n == 16


def test_evaluation_does_not_depend_on_the_batch_size_and_counts_every_sample(task, trunk):
    results = [task.evaluate(task.attach(trunk), EvalContext(batch_size=size)) for size in (3, 16)]
    assert [result.n for result in results] == [16, 16]
    assert results[0].samples["index"] == list(range(16))
    assert results[0].samples["label"] == list(task.data.splits["test"].labels)
    assert results[0].metrics == pytest.approx(results[1].metrics, abs=1e-5)
    assert results[0].samples_sha256 == results[1].samples_sha256


def test_a_predictor_s_members_get_the_head_each(task, trunk):
    class Mean(Predictor):
        def combine(self, outputs):
            return outputs.mean(0)

    alone, twice = task.attach(trunk), attach(task, Mean({"a": trunk, "b": trunk}))
    batch = next(task.batches("test", labelled=False))
    with torch.no_grad():
        torch.testing.assert_close(twice(**batch.inputs), alone(**batch.inputs))


def test_batches_are_sorted_by_length_and_say_where_their_texts_stand(task):
    batches = list(task.batches("test", labelled=True, batch_size=4))
    widths = [batch.inputs["input_ids"].shape[1] for batch in batches]
    assert widths == sorted(widths)
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(16))
    for batch in batches:
        expected = [task.data.splits["test"].labels[index] for index in batch.indices]
        assert batch.labels.tolist() == expected


def test_a_limit_takes_the_first_texts_and_a_seed_a_random_order(task):
    first = [batch.indices for batch in task.batches("test", labelled=False, limit=6)]
    assert sorted(torch.cat(first).tolist()) == list(range(6))
    orders = []
    for seed in (1, 1, 2):
        before = torch.get_rng_state()
        batches = task.batches("train", labelled=False, seed=seed, batch_size=4)
        orders.append(torch.cat([batch.indices for batch in batches]).tolist())
        assert torch.equal(torch.get_rng_state(), before)
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(16))


def test_batches_without_labels_carry_none(task):
    assert next(task.batches("train", labelled=False)).labels is None


def test_the_card_tells_title_licence_and_sizes(task):
    card = task.card()
    assert (card.title, card.licence, card.labels) == ("Films", "CC0-1.0", ("good", "bad"))
    assert card.splits == {"train": 16, "validation": 16, "test": 16}


def test_the_fingerprint_follows_everything_that_decides_a_result(task, tiny_texts, tiny_encoder):
    def other(**changes) -> str:
        parameters = {"name": "films", "dataset": str(tiny_texts), "encoder": str(tiny_encoder), **changes}
        return TextClassification(**parameters).fingerprint()

    assert other() == task.fingerprint()
    assert other(name="renamed") == task.fingerprint()
    changed = {other(scale=10), other(max_length=5), other(prompts=("good", "bad"))}
    lines = tiny_texts.read_text().splitlines()
    tiny_texts.write_text("\n".join(lines[:-1]))
    changed.add(other())
    assert len(changed | {task.fingerprint()}) == 5


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_other_formats_go_through_datasets(tiny_encoder, tmp_path, monkeypatch, suffix):
    file = tmp_path / f"reviews{suffix}"
    rows = [(f"very {word} film", "pos" if word == "good" else "neg") for word in ("good", "bad") * 5]
    if suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        table = {"review": [row[0] for row in rows], "verdict": [row[1] for row in rows]}
        parquet.write_table(pyarrow.table(table), file)
    else:
        with file.open("w", newline="") as handle:
            writer = csv.writer(handle, delimiter="," if suffix == ".csv" else "\t")
            writer.writerows([("review", "verdict"), *rows])
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    task = TextClassification(
        name="reviews",
        dataset=str(file),
        encoder=str(tiny_encoder),
        text_column="review",
        label_column="verdict",
        splits={"train": "train[:60%]", "test": "train[60%:]"},
        prompts=("bad", "good"),
    )
    assert task.card().splits == {"train": 6, "test": 4}
    assert task.class_names == ("neg", "pos")
    assert list(task.data.splits["test"].labels) == [1, 0, 1, 0]
    with pytest.raises(ConfigError, match="no column"):
        TextClassification(name="reviews", dataset=str(file), splits={"test": "train"}).card()


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"split": "test", "text": "a"}',
        '{"split": "test", "text": "a", "label": 2}',
        '{"split": "test", "text": "a", "label": "unheard of"}',
        '{"split": "dev", "text": "a", "label": 0}',
        '{"split": "test", "text": 1, "label": 0}',
    ],
)
def test_malformed_lines_are_named(task, tiny_texts, line):
    tiny_texts.write_text(tiny_texts.read_text() + line + "\n")
    with pytest.raises(CorruptFile) as caught:
        task.card()
    assert str(tiny_texts) in str(caught.value)


def test_a_truncated_gzip_file_is_corrupt(tmp_path):
    import gzip

    packed = gzip.compress(json.dumps({"split": "test", "text": "a" * 99, "label": 0}).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-9])
    with pytest.raises(CorruptFile):
        TextClassification(name="cut", dataset=str(tmp_path / "cut.jsonl.gz")).card()


def test_errors_name_what_there_is(task, trunk, tiny_texts, tiny_encoder):
    with pytest.raises(NotFound, match="no embedded data set") as caught:
        TextClassification(name="x", dataset="no_such_task").card()
    assert "wordnet" in str(caught.value)
    with pytest.raises(ConfigError, match="1 prompts for 2 labels"):
        TextClassification(
            name="x", dataset=str(tiny_texts), encoder=str(tiny_encoder), prompts=("one",)
        ).attach(trunk)
    only = Path(tiny_texts).with_name("only.jsonl")
    only.write_text('{"split": "test", "text": "a", "label": 0}\n')
    with pytest.raises(TaskError, match="no split 'train'"):
        next(TextClassification(name="x", dataset=str(only)).batches("train", labelled=False))


@pytest.mark.parametrize(
    "fields",
    [
        {"head": "expert"},
        {"head_from": "somewhere"},
        {"head": "model"},
        {"head": "model", "tokenizer": "t", "prompts": ("a",)},
        {"scale": 0},
        {"max_length": 0},
        {"unknown": 1},
    ],
)
def test_parameters_that_make_no_sense_are_rejected(fields):
    with pytest.raises(ValidationError):
        TextClassification(name="x", dataset="wordnet", **fields)


def test_a_model_without_token_states_is_refused(task, tiny):
    with pytest.raises(TaskError, match="token states"):
        task.evaluate(task.attach(tiny("llama", "AutoModelForCausalLM")), EvalContext())


def test_a_hub_data_set_that_cannot_be_reached_says_what_to_download(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(Offline) as caught:
        TextClassification(name="x", dataset="someone/some-data").card()
    assert "hf download --repo-type dataset someone/some-data" in str(caught.value)


def test_a_tokenizer_of_the_hub_is_fetched_without_weights(monkeypatch, tiny_encoder):
    import huggingface_hub

    asked = []

    def snapshot(name, **options):
        asked.append((name, options["allow_patterns"]))
        return str(tiny_encoder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert tokenizer_directory("some/model") == tiny_encoder
    ((name, patterns),) = asked
    assert name == "some/model"
    assert "*.json" in patterns
    assert not {"*.safetensors", "*.bin"} & set(patterns)
