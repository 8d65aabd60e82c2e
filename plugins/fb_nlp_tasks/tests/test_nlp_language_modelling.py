"""Language modelling: blocks, loss, perplexity, and merging by it, on tiny models and texts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from fb_nlp_tasks.tasks.language_modelling import LanguageModelling

from fusionbench_core import AdaptationTask, ConfigError, CorruptFile, EvalContext, NotFound, TaskError
from fusionbench_core.cli import main

LENGTH = 6


@pytest.fixture
def task(tiny_texts, tiny_encoder) -> LanguageModelling:
    return LanguageModelling(
        name="films", dataset=str(tiny_texts), tokenizer=str(tiny_encoder), length=LENGTH
    )


def tokens_of(file: Path, tokenizer: Path, split: str) -> list[int]:
    """All tokens of a split, one text behind the other."""
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    texts = [
        line["text"] for line in map(json.loads, file.read_text().splitlines()) if line["split"] == split
    ]
    return [token for text in texts for token in words(text, add_special_tokens=False)["input_ids"]]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_loss_and_perplexity_are_those_of_the_next_tokens(task, tiny, tiny_texts, tiny_encoder, kind):
    trunk = tiny(kind, "AutoModelForCausalLM")
    tokens = tokens_of(tiny_texts, tiny_encoder, "test")
    losses = []
    for start in range(0, len(tokens) - LENGTH + 1, LENGTH):
        block, total = tokens[start : start + LENGTH], 0.0
        for place in range(1, LENGTH):
            with torch.no_grad():
                logits = trunk(input_ids=torch.tensor([block[:place]])).logits[0, -1].double()
            total -= float(logits[block[place]] - logits.exp().sum().log())
        losses.append(total / (LENGTH - 1))
    mean = sum(losses) / len(losses)
    half = 1.96 * math.sqrt(sum((each - mean) ** 2 for each in losses) / (len(losses) - 1) / len(losses))
    result = task.evaluate(task.attach(trunk), EvalContext(batch_size=3))
    assert result.n == len(tokens) // LENGTH
    assert result.metrics["loss"] == pytest.approx(mean, rel=1e-5)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert result.intervals["loss"] == pytest.approx((mean - half, mean + half), rel=1e-4)
    assert result.intervals["perplexity"] == pytest.approx(
        (math.exp(mean - half), math.exp(mean + half)), rel=1e-4
    )


def test_batches_carry_the_tokens_that_follow(task, tiny_texts, tiny_encoder, tiny):
    tokens = tokens_of(tiny_texts, tiny_encoder, "train")
    batches = list(task.batches("train", labelled=True, seed=3, batch_size=2, limit=5))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    for batch in batches:
        for row, place in enumerate(batch.indices.tolist()):
            block = tokens[place * LENGTH : (place + 1) * LENGTH]
            assert batch.inputs["input_ids"][row].tolist() == block
            assert batch.labels[row].tolist() == block[1:]
    (bare,) = task.batches("train", labelled=False, batch_size=100)
    assert bare.labels is None
    assert len(bare) == len(tokens) // LENGTH
    with torch.no_grad():
        logits = task.attach(tiny("gpt2", "AutoModelForCausalLM"))(**batches[0].inputs)
    expected = -sum(
        float(row.double().log_softmax(0)[label])
        for row, label in zip(logits.flatten(0, 1), batches[0].labels.flatten())
    ) / (2 * (LENGTH - 1))
    assert float(task.loss(logits, batches[0].labels)) == pytest.approx(expected, rel=1e-5)


def test_an_end_of_text_stands_after_every_text(tiny, with_tokenizer, tiny_texts, tmp_path):
    directory = with_tokenizer(tiny("gpt2", "AutoModelForCausalLM"), tmp_path / "lm")
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    (directory / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "[SEP]"}))
    task = LanguageModelling(name="films", dataset=str(tiny_texts), tokenizer=str(directory), length=8)
    (batch,) = task.batches("test", labelled=False, batch_size=100)
    # Texts: "good film", "very bad book", "very very fine film", …
    assert batch.inputs["input_ids"].flatten()[:7].tolist() == [4, 8, 3, 12, 5, 9, 3]


def test_lines_of_a_text_file_are_read_in_slices(tiny_encoder, tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("good film\n" * 30 + "bad book\n" * 10)
    task = LanguageModelling(
        name="lines",
        dataset=str(file),
        tokenizer=str(tiny_encoder),
        length=4,
        splits={"train": "train[:75%]", "test": "train[75%:]"},
    )
    assert task.card().splits == {"train": 15, "test": 5}
    (batch,) = task.batches("test", labelled=False)
    assert batch.inputs["input_ids"].tolist() == [[5, 9, 5, 9]] * 5
    with pytest.raises(TaskError, match="no block"):
        next(task.batches("validation", labelled=False))
    with pytest.raises(ConfigError, match="no column 'prose'"):
        LanguageModelling(**{**task.model_dump(), "text_column": "prose"}).card()


def test_what_is_no_text_or_no_language_model_is_refused(task, tiny, tmp_path, tiny_encoder):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"split": "test", "label": 1}\n')
    with pytest.raises(CorruptFile, match="line 1"):
        LanguageModelling(name="bad", dataset=str(file), tokenizer=str(tiny_encoder)).card()
    with pytest.raises(NotFound):
        LanguageModelling(name="bad", dataset="nothing", tokenizer=str(tiny_encoder)).card()
    with pytest.raises(TaskError, match="no logits of the next tokens"):
        task.evaluate(task.attach(tiny("gpt2", "AutoModel")), EvalContext())


def test_the_fingerprint_follows_texts_length_and_tokenizer(task, tiny_texts):
    assert task.fingerprint() == task.model_copy(update={"name": "other"}).fingerprint()
    longer = LanguageModelling(**{**task.model_dump(), "length": 7})
    assert longer.fingerprint() != task.fingerprint()
    tiny_texts.write_text(tiny_texts.read_text().replace("film", "book"))
    assert LanguageModelling(**task.model_dump()).fingerprint() != task.fingerprint()


@pytest.fixture
def run(tiny, with_tokenizer, tiny_texts, tmp_path):
    """`run(method, …)`: the report and the output of `fb run` over two tiny language models."""
    paths = {
        name: str(with_tokenizer(tiny("llama", "AutoModelForCausalLM", seed), tmp_path / name))
        for seed, name in enumerate(("base", "a", "b"))
    }
    entry = {"dataset": str(tiny_texts), "tokenizer": paths["base"], "length": LENGTH}

    def run(method: dict, **more) -> tuple[dict, str]:
        config = {
            "method": method,
            "modelpool": {
                "source": "causal_lm",
                "base": paths["base"],
                "models": {n: paths[n] for n in "ab"},
            },
            "taskpool": {"task": "language_modelling", "tasks": {"a": entry, "b": {**entry, "length": 4}}},
            "output_dir": str(tmp_path / "out"),
            **more,
        }
        (tmp_path / "run.yaml").write_text(json.dumps(config))
        done = CliRunner().invoke(main, ["run", "-q", "-c", str(tmp_path / "run.yaml")])
        assert done.exit_code == 0, done.output
        return json.loads((tmp_path / "out" / "report.json").read_text()), done.output

    return run


@pytest.fixture
def validation(tiny, tiny_texts, tiny_encoder):
    """`validation(*models)`: task -> logits `(models, n, vocabulary)` and labels of all next tokens."""

    def found(*models) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        pairs = {}
        for name, length in (("a", LENGTH), ("b", 4)):
            task = LanguageModelling(
                name=name, dataset=str(tiny_texts), tokenizer=str(tiny_encoder), length=length
            )
            (batch,) = task.batches("validation", labelled=True, batch_size=1000)
            with torch.no_grad():
                logits = torch.stack([task.attach(model)(**batch.inputs).double() for model in models])
            pairs[name] = (logits.flatten(1, 2), batch.labels.flatten())
        return pairs

    return found


def mean_loss(tasks, weights) -> float:
    """Of the weighted mean of logits; every task counts the same."""
    each = [
        torch.nn.functional.cross_entropy(
            (torch.tensor(weights).double()[:, None, None] * logits).sum(0), labels
        )
        for logits, labels in tasks.values()
    ]
    return float(sum(each) / len(each))


def test_supervised_adamerging_lowers_the_loss_of_language_models(run, tiny_texts, tiny_encoder):
    """From end to end, by `fb run`."""
    method = {"name": "adamerging", "objective": "cross_entropy", "steps": 10, "learning_rate": 0.05}
    report, output = run(method)
    assert "loss (nats)" in output
    curve = report["fusionbench"]["details"]["losses"]["series"]["cross entropy"]
    assert curve[-1] < curve[0]
    for name in "ab":
        assert report[name]["perplexity"] == pytest.approx(math.exp(report[name]["loss"]))
    blocks = len(tokens_of(tiny_texts, tiny_encoder, "validation")) // LENGTH
    assert report["fusionbench"]["adaptation_data"]["a"] == {"validation with labels": 10 * blocks}


def test_weights_of_an_ensemble_of_language_models_are_those_of_least_loss(run, validation, tiny):
    details = run({"name": "weighted_ensemble", "weights": "fitted"})[0]["fusionbench"]["details"]
    tasks = validation(*(tiny("llama", "AutoModelForCausalLM", seed) for seed in (1, 2)))
    grid = min(mean_loss(tasks, (share / 500, 1 - share / 500)) for share in range(501))
    fitted = tuple(details["weights"][name] for name in "ab")
    assert sum(fitted) == pytest.approx(1)
    assert mean_loss(tasks, fitted) <= grid + 1e-9
    assert details["validation_samples"]["a"] * (LENGTH - 1) == len(tasks["a"][1])


def test_a_greedy_soup_of_language_models_counts_tokens(run, validation, tiny):
    details = run({"name": "greedy_soup"})[0]["fusionbench"]["details"]
    tasks = validation(*(tiny("llama", "AutoModelForCausalLM", seed) for seed in (1, 2)))
    right = [(logits.argmax(-1) == labels).double().mean(-1) for logits, labels in tasks.values()]
    expected = dict(zip("ab", (sum(right) / len(right)).tolist()))
    assert details["validation_accuracy"] == pytest.approx(expected)


def test_coefficients_are_tuned_for_the_loss_where_there_is_no_accuracy(run, validation, tiny):
    grid = [0.0, 0.5, 1.0]
    method, tune = {"name": "task_arithmetic"}, {"scaling_factor": grid}
    details = run(method, tune=tune)[0]["fusionbench"]["details"]
    models = [tiny("llama", "AutoModelForCausalLM", seed) for seed in (0, 1, 2)]
    losses = []
    for factor in grid:
        merged = tiny("llama", "AutoModelForCausalLM", 0)
        base, *others = (model.state_dict() for model in models)
        merged.load_state_dict(
            {key: base[key] + factor * sum(other[key] - base[key] for other in others) for key in base}
        )
        losses.append(mean_loss(validation(merged), [1.0]))
    assert details["tuning"]["series"]["mean of all tasks"] == pytest.approx(losses, rel=1e-4)
    assert details["tuned scaling_factor"] == grid[losses.index(min(losses))]


def test_without_labels_the_loss_is_not_to_be_had(task):
    guarded = AdaptationTask(task, labels=False)
    (batch,) = guarded.batches("validation", batch_size=100)
    assert batch.labels is None
