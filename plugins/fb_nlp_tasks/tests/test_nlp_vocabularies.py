"""Models of different vocabularies: every row follows its token. Expected rows are written out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from fusionbench_core import (
    ConfigError,
    FusionError,
    IncompatibleModels,
    MethodRecord,
    MissingCapability,
    NotFound,
    TensorMethod,
    fuse,
    implements,
    load,
    open_checkpoint,
    open_pool,
)

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
MEAN = MethodRecord(name="mean", target=f"{__name__}:Mean", summary="the mean of all models")


@implements(MEAN)
class Mean(TensorMethod):
    def merge(self, group):
        return sum(group.models) / len(group.models)


def words(vocabulary: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def save(directory: Path, tokenizer: Tokenizer, added: list[str], rows: int, first: float, **config) -> Path:
    """A tiny llama whose embedding has `first`, `first + 1`, … in its rows, and its head ten times that."""
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    fast.save_pretrained(directory)
    settings = transformers.LlamaConfig(
        vocab_size=rows, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4,
        **{"bos_token_id": 1, "eos_token_id": 2, **config},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        model = transformers.LlamaForCausalLM(settings)
        values = first + torch.arange(rows)[:, None].expand(rows, 4).float()
        model.model.embed_tokens.weight.copy_(values)
        if not settings.tie_word_embeddings:
            model.lm_head.weight.copy_(10 * values)
        for name, parameter in model.named_parameters():
            if name not in (EMBED, HEAD):
                parameter.fill_(0.5)
    model.save_pretrained(directory)
    return directory


SPECIAL = ["<unk>", "<s>", "</s>"]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A base of 5 rows; `a` with another order, two more tokens and a row of padding; `b` with two more."""
    root = tmp_path_factory.mktemp("three")
    base = save(root / "base", words([*SPECIAL, "cat", "dog"]), [], 5, 0)
    a = save(root / "a", words([*SPECIAL, "dog", "cat"]), ["<im>", "<both>"], 8, 10, eos_token_id=5)
    b = save(root / "b", words([*SPECIAL, "cat", "dog", "bird"]), ["<both>"], 7, 20)
    return {"base": base, "a": a, "b": b}


def merged(three, output: Path, tokenizer, **options):
    pair = {name: three[name] for name in "ab"}
    return fuse(
        Mean(), pair, base=three["base"], output=output, source="causal_lm", tokenizer=tokenizer, **options
    )


def rows_of(directory: Path) -> list[float]:
    """The one value in each row of the embedding; those of the head are ten times as large."""
    checkpoint = open_checkpoint(directory)
    embed = checkpoint.tensor(EMBED)
    assert torch.equal(checkpoint.tensor(HEAD), 10 * embed)
    assert (embed == embed[:, :1]).all()
    return embed[:, 0].tolist()


def test_the_tokenizer_of_the_base(three, tmp_path):
    out = merged(three, tmp_path / "out", "base")
    #                       <unk>         <s>           </s>          cat           dog
    assert rows_of(out) == [(10 + 20) / 2, (11 + 21) / 2, (12 + 22) / 2, (14 + 23) / 2, (13 + 24) / 2]
    config = json.loads((out / "config.json").read_text())
    assert (config["vocab_size"], config["eos_token_id"]) == (5, 2)
    assert transformers.AutoTokenizer.from_pretrained(out).get_vocab() == {
        "<unk>": 0, "<s>": 1, "</s>": 2, "cat": 3, "dog": 4
    }  # fmt: skip


def test_the_tokenizer_of_a_model_with_its_padding_and_its_special_tokens(three, tmp_path):
    out = merged(three, tmp_path / "out", "a")
    #                       <unk> <s> </s> dog   cat   <im> <both>         padding, which b has not
    assert rows_of(out) == [15, 16, 17, 18.5, 18.5, 15, (16 + 26) / 2, 17 / 2]
    config = json.loads((out / "config.json").read_text())
    assert (config["vocab_size"], config["eos_token_id"]) == (8, 5)
    assert transformers.AutoTokenizer.from_pretrained(out).get_vocab()["dog"] == 3
    dropped = merged(three, tmp_path / "dropped", {"source": "a", "padding": "drop"})
    assert rows_of(dropped) == [15, 16, 17, 18.5, 18.5, 15, 21]
    zeros = {"source": "a", "padding": "drop", "pad_to_multiple_of": 5}
    assert rows_of(merged(three, tmp_path / "zeros", zeros)) == [15, 16, 17, 18.5, 18.5, 15, 21, 0, 0, 0]


UNION = {"<unk>": 0, "<s>": 1, "</s>": 2, "cat": 3, "dog": 4, "<im>": 5, "<both>": 6, "bird": 7}


def test_the_union_keeps_the_ids_of_the_base_and_appends_the_rest(three, tmp_path):
    out = merged(three, tmp_path / "out", "union")
    assert rows_of(out) == [15, 16, 17, 18.5, 18.5, 15, 21, 25]
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer.get_vocab() == UNION
    assert tokenizer("cat <im> bird<both> x")["input_ids"] == [3, 5, 7, 6, 0]
    assert "<im>" in tokenizer.decode([5])
    assert tokenizer.decode([3, 5, 7], skip_special_tokens=True).split() == ["cat", "bird"]


def test_the_result_runs_in_transformers_and_here(three, tmp_path):
    out = merged(three, tmp_path / "out", "union")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    ids = torch.tensor([[3, 5, 7]])
    with torch.no_grad():
        assert torch.equal(theirs(ids).logits, load(out)(ids).logits)
    assert theirs.lm_head.weight.shape == (8, 4)


@pytest.mark.parametrize(
    ("rules", "token", "expected"),
    [
        ({}, "<both>", {"base": (16 + 26) / 2, "a": 16, "b": 26}),
        ({"<im>": "zero"}, "<im>", {"base": 0, "a": 15, "b": 0}),
        ({"cat": {"source": "a", "force": True}}, "cat", {"base": 14, "a": 14, "b": 14}),
        ({"cat": {"source": "mean", "force": True}}, "cat", dict.fromkeys(["base", "a", "b"], 40 / 3)),
        ({"<both>": "b"}, "<both>", {"base": 26, "a": 16, "b": 26}),
        ({"<im>": {"source": "base", "token": "dog"}}, "<im>", {"base": 4, "a": 15, "b": 4}),
    ],
)  # fmt: skip
def test_rules_say_what_a_model_gets_for_a_token_it_lacks(three, rules, token, expected):
    pool = open_pool(section(three, {"source": "union", "tokens": rules}))
    for name, value in expected.items():
        checkpoint = pool.checkpoint(None if name == "base" else name)
        assert checkpoint.tensor(EMBED)[UNION[token]].tolist() == pytest.approx([value] * 4, rel=1e-6)
        assert checkpoint.info(EMBED).shape == (8, 4)


def section(three, tokenizer, **more):
    models = {name: str(three[name]) for name in "ab"}
    return {
        "source": "causal_lm",
        "base": str(three["base"]),
        "models": models,
        "tokenizer": tokenizer,
        **more,
    }


def test_live_modules_have_the_rows_of_the_result(three):
    pool = open_pool(section(three, "union"))
    assert pool.module("a").lm_head.weight.shape == (8, 4)
    assert pool.module().model.embed_tokens.weight[7].tolist() == [25.0] * 4


def test_models_of_one_tokenizer_are_seen_as_they_are(three, tmp_path):
    twins = {"x": str(three["a"]), "y": str(three["a"])}
    options = {"source": "causal_lm", "tokenizer": "union"}
    pool = open_pool({"models": twins, **options})
    plain = open_pool({"models": twins, "source": "causal_lm"})
    assert pool.checkpoint("x").fingerprint() == plain.checkpoint("x").fingerprint()
    assert pool.alignment.notes == ()
    assert rows_of(fuse(Mean(), twins, output=tmp_path / "out", **options)) == [
        10.0 + row for row in range(8)
    ]


def test_the_notes_name_what_is_lost_and_what_is_new(three):
    notes = open_pool(section(three, "base")).alignment.notes
    assert "the tokenizer of base lacks 2 tokens ('<im>', '<both>') of a: left out" in notes
    assert "the tokenizer of base lacks 2 tokens ('bird', '<both>') of b: left out" in notes
    notes = "\n".join(open_pool(section(three, "union")).alignment.notes)
    assert "b gets rows for 1 token ('<im>')" in notes


def test_different_rows_without_a_rule_say_what_to_write(three, tmp_path):
    with pytest.raises(IncompatibleModels) as caught:
        merged(three, tmp_path / "out", None)
    text = str(caught.value)
    for fact in (f"{EMBED}: [5, 4] expected, [8, 4] in a", f"{HEAD}: [5, 4] expected, [7, 4] in b"):
        assert fact in text
    assert "modelpool.tokenizer=base" in text


@pytest.mark.parametrize(
    ("tokenizer", "error", "facts"),
    [
        ("bass", ConfigError, ["'bass'", "did you mean 'base'"]),
        ({"source": "base", "padding": "cut"}, ConfigError, ["padding", "keep", "drop"]),
        ({"source": "base", "tokenz": {}}, ConfigError, ["tokenz", "tokens"]),
        (
            {"tokens": {"cat": {"source": "zero", "token": "dog"}}},
            ConfigError,
            ["tokens.cat", "names a token"],
        ),
        ({"tokens": {"cat": "c"}}, ConfigError, ["'c'", "mean, zero, a, b, base"]),
        ({"tokens": {"catt": "a"}}, IncompatibleModels, ["'catt'", "did you mean", "cat"]),
        ({"tokens": {"<im>": "b"}}, IncompatibleModels, ["b has no row for the token '<im>'"]),
    ],
)
def test_mistakes_are_explained(three, tmp_path, tokenizer, error, facts):
    with pytest.raises(error) as caught:
        merged(three, tmp_path / "out", tokenizer)
    for fact in facts:
        assert fact in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_tokenizer_is_named(three, tmp_path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(three["b"], bare, ignore=shutil.ignore_patterns("token*", "special*"))
    with pytest.raises(NotFound, match="no tokenizer beside the weights") as caught:
        merged({**three, "b": bare}, tmp_path / "out", "base")
    assert str(bare) in str(caught.value)


def test_tokens_beyond_the_rows_are_no_rows(three, tmp_path):
    short = save(tmp_path / "short", words([*SPECIAL, "cat", "dog", "cow"]), [], 5, 30)
    pool = open_pool(section({**three, "b": short}, "b"))
    assert pool.checkpoint("b").tensor(EMBED)[:, 0].tolist() == [30, 31, 32, 33, 34, 0]
    assert any("zero in all models" in note and "cow" in note for note in pool.alignment.notes)


def test_tied_embeddings_stay_tied(tmp_path):
    a = save(tmp_path / "a", words([*SPECIAL, "x"]), [], 4, 0, tie_word_embeddings=True)
    b = save(tmp_path / "b", words([*SPECIAL, "y", "x"]), [], 5, 10, tie_word_embeddings=True)
    models = {"a": a, "b": b}
    out = fuse(Mean(), models, output=tmp_path / "out", source="causal_lm", tokenizer="union")
    checkpoint = open_checkpoint(out)
    assert checkpoint.aliases == {HEAD: EMBED}
    assert checkpoint.tensor(EMBED)[:, 0].tolist() == [5, 6, 7, (3 + 14) / 2, 13]


def pairs(vocabulary: list[str], merges: list[tuple[str, str]]) -> Tokenizer:
    model = models.BPE({word: i for i, word in enumerate(vocabulary)}, merges, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def test_a_union_of_byte_pair_encodings_takes_the_merges_along(tmp_path):
    a = save(tmp_path / "a", pairs([*SPECIAL, "a", "b", "c", "ab"], [("a", "b")]), ["<x>"], 8, 0)
    other = pairs([*SPECIAL, "a", "b", "c", "bc", "ab", "abc"], [("a", "b"), ("b", "c"), ("ab", "c")])
    b = save(tmp_path / "b", other, ["<y>"], 10, 100)
    out = fuse(Mean(), {"a": a, "b": b}, output=tmp_path / "out", source="causal_lm", tokenizer="union")
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    found = tokenizer.convert_ids_to_tokens(tokenizer("ab abc cbc <x> <y>")["input_ids"])
    assert found == ["ab", "abc", "c", "bc", "<x>", "<y>"]
    ids = tokenizer.get_vocab()
    assert {token: ids[token] for token in ("<x>", "bc", "abc", "<y>")} == {
        "<x>": 7,
        "bc": 8,
        "abc": 9,
        "<y>": 10,
    }
    #  both have ab: rows 6 and 107; the others come from the one that has them
    assert rows_of(out)[6:] == [(6 + 107) / 2, 7, 106, 108, 109]


def test_a_unigram_model_takes_added_tokens_but_no_words(tmp_path):
    def unigram(*vocabulary: str) -> Tokenizer:
        tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in vocabulary], unk_id=0))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return tokenizer

    a = save(tmp_path / "a", unigram(*SPECIAL, "x"), [], 4, 0)
    b = save(tmp_path / "b", unigram(*SPECIAL, "x"), ["<y>"], 5, 10)
    c = save(tmp_path / "c", unigram(*SPECIAL, "x", "z"), [], 5, 20)
    options = {"source": "causal_lm", "tokenizer": "union"}
    out = fuse(Mean(), {"a": a, "b": b}, output=tmp_path / "out", **options)
    assert rows_of(out) == [5, 6, 7, 8, 14]
    with pytest.raises(MissingCapability, match="Unigram model takes no words in"):
        fuse(Mean(), {"a": a, "c": c}, output=tmp_path / "no", **options)
    assert not (tmp_path / "no").exists()


def test_a_source_without_tokens_says_so():
    with pytest.raises(FusionError, match="for models given as paths"):
        fuse(Mean(), {"a": {"w": torch.ones(1)}}, tokenizer="union")
