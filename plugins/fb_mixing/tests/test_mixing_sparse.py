"""Sparse mixtures of feed-forward modules against their formula, and as Mixtral."""

from __future__ import annotations

import json

import pytest
import torch
from fb_mixing.sparse.mixtral_merging import MixtralMerging
from fb_mixing.sparse.mixtral_upcycling import MixtralUpcycling
from fb_mixing.sparse.mixture import SparseMixture
from torch import Tensor, nn

from fusionbench_core import ConfigError, MissingCapability, UnsupportedArchitecture, fuse, load
from fusionbench_core.testing.zoo import case

FAMILIES = ["llama", "mistral", "bert", "gpt2", "t5", "clip_vision_model"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(seed: int) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, 5, 4).requires_grad_(False)
    layer.weight.copy_(randn(4, 5, seed=seed))
    layer.bias.copy_(randn(4, seed=seed + 50))
    return layer


def mixture(top_k: int) -> SparseMixture:
    made = SparseMixture([linear(seed) for seed in (1, 2, 3)], 5, top_k=top_k)
    made.router.copy_(randn(3, 5, seed=9))
    return made


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_a_mixture_follows_the_formula(top_k):
    """y = sum over the top_k of softmax(R x)_t E_t(x), renormalised, one token at a time in float64."""
    made, x = mixture(top_k), randn(2, 7, 5, seed=4)
    rows = []
    for token in x.double().reshape(-1, 5):
        gates = (made.router.double() @ token).softmax(0)
        chosen = gates.argsort(descending=True)[:top_k]
        outputs = [made.experts[t].weight.double() @ token + made.experts[t].bias.double() for t in chosen]
        rows.append(sum(gates[t] / gates[chosen].sum() * y for t, y in zip(chosen, outputs)))
    expected = torch.stack(rows).view(2, 7, 4)
    torch.testing.assert_close(made(x).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 0), (2, 3, 4)])
def test_any_leading_dimensions_work(leading):
    assert mixture(2)(randn(*leading, 5)).shape == (*leading, 4)


def test_a_router_that_points_at_one_expert_gives_that_expert():
    made, x = mixture(1), randn(6, 5, seed=3).abs()
    made.router.copy_(torch.tensor([[-1.0], [9.0], [0.0]]).expand(3, 5))
    torch.testing.assert_close(made(x), made.experts[1](x))


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_upcycled_model_computes_what_the_dense_one_does(kind, tiny, inputs, computed):
    dense = tiny(kind)
    upcycled = fuse("mixtral_upcycling", {"a": dense}, num_experts=3)
    torch.testing.assert_close(
        computed(upcycled, inputs(kind)), computed(dense, inputs(kind)), rtol=1e-4, atol=1e-5
    )
    experts = sum(1 for name, _ in upcycled.named_parameters() if ".experts" in name)
    assert experts > 0


@pytest.mark.parametrize("kind", FAMILIES)
def test_zero_routers_give_the_mean_of_the_experts_in_every_layer(kind, tiny, inputs, computed):
    base = tiny(kind)
    experts = {"a": tiny(kind, 1, base), "b": tiny(kind, 2, base)}
    merged = fuse("mixtral_merging", experts, base, init_std=0.0, top_k=2)
    names = [name for name, module in merged.named_modules() if type(module).__name__.endswith(_MIXTURES)]
    assert len(names) == {"bert": 8, "t5": 8}.get(kind, 4)
    own = {name: base.get_submodule(name) for name in names}

    def mean_of(name: str):
        first, second = (model.get_submodule(name) for model in experts.values())
        return lambda *given: (first(*given) + second(*given)) / 2

    for name, module in own.items():
        module.forward = mean_of(name)
    expected = computed(base, inputs(kind))
    torch.testing.assert_close(computed(merged, inputs(kind)), expected, rtol=1e-4, atol=1e-5)


_MIXTURES = ("SparseMixture", "SparseMoeBlock")


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_what_is_written_is_a_mixtral_that_transformers_loads(kind, written, inputs, computed, tmp_path):
    pytest.importorskip("fb_nlp_tasks")
    import transformers

    paths = written(kind, torch.bfloat16, base=0, a=1, b=2, c=3)
    base = paths.pop("base")
    out = fuse("mixtral_merging", paths, base, output=tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert type(theirs).__name__ == "MixtralForCausalLM"
    assert (theirs.config.num_local_experts, theirs.config.num_experts_per_tok) == (3, 2)
    assert torch.equal(computed(load(out), inputs(kind)), computed(theirs, inputs(kind)))
    expert = load(paths["b"]).model.layers[2].mlp
    block = theirs.model.layers[2].mlp.experts
    both = torch.cat([expert.gate_proj.weight, expert.up_proj.weight])
    assert torch.equal(block.gate_up_proj[1], both)
    assert torch.equal(block.down_proj[1], expert.down_proj.weight)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_other_architectures_load_with_their_builder(kind, written, inputs, computed, tmp_path):
    pytest.importorskip("fb_nlp_tasks")
    paths = written(kind, base=0, a=1, b=2)
    base = paths.pop("base")
    out = fuse("mixtral_merging", paths, base, output=tmp_path / "out")
    modules = {name: load(path) for name, path in paths.items()}
    in_memory = fuse("mixtral_merging", modules, load(base))
    assert torch.equal(computed(load(out), inputs(kind)), computed(in_memory, inputs(kind)))
    assert json.loads((out / "fusion.json").read_text())["builder"] == "mixing/sparse_mixtures"


@pytest.fixture
def with_words(written):
    """Directories of a base and two experts, a word-level tokenizer beside the base."""
    pytest.importorskip("fb_nlp_tasks")
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    paths = written("llama", base=0, a=1, b=2)
    words = {word: number for number, word in enumerate(["[UNK]", "sum", "of", "poem", "about", "sea"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(paths["base"])
    return paths


PROMPTS = {"a": ("sum of", "of sum sum"), "b": ("poem about sea",)}
IDS = {"a": ([1, 2], [2, 1, 1]), "b": ([3, 4, 5],)}


def seen(model: nn.Module, layer: int, ids: list[int]) -> Tensor:
    """What the feed-forward module of a layer sees, `(tokens, in)` in float64."""
    model, caught = model.double(), []
    hook = model.model.layers[layer].mlp.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    with torch.no_grad():
        model(torch.tensor([ids]))
    hook.remove()
    return caught[0][0]


@pytest.mark.parametrize("init", ["hidden", "hidden_avg", "cheap_embed"])
def test_routers_are_the_directions_of_the_prompts(init, with_words, tmp_path):
    base = with_words.pop("base")
    negative = {"b": ("of",)}
    method = MixtralMerging(router_init=init, prompts=PROMPTS, negative_prompts=negative)
    merged = load(fuse(method, with_words, base, output=tmp_path / "out"))
    model = load(base)
    for layer in range(4):
        rows = []
        for name, texts in IDS.items():

            def mean(texts, layer=layer):
                if init == "cheap_embed":
                    ids = [word for text in texts for word in text]
                    return model.model.embed_tokens.weight[ids].double().mean(0)
                tokens = [seen(model, layer, text) for text in texts]
                each = [t[-1] if init == "hidden" else t.mean(0) for t in tokens]
                return torch.stack(each).mean(0)

            direction = mean(texts) - (mean(([2],)) if name == "b" else 0)
            rows.append(direction / direction.norm())
        found = merged.model.layers[layer].mlp.gate.weight.double()
        torch.testing.assert_close(found, torch.stack(rows), rtol=1e-4, atol=1e-5)


def test_without_prompts_routers_are_the_directions_of_the_tasks_data():
    small = case("vit_tiny", count=2)
    merged = fuse(
        MixtralMerging(router_init="hidden_avg", samples=16), small.models, small.base, tasks=small.tasks
    )
    for number, task in enumerate(small.tasks.values()):
        (batch,) = task.batches("validation", labelled=False, limit=16)
        block = small.base.encoder["layers"][0]
        entered = block.norm(batch.inputs["x"] + small.base.embeddings.class_embedding)
        mean = entered.double().mean(0)
        found = merged.encoder["layers"][0].mlp.router[number].double()
        torch.testing.assert_close(found, mean / mean.norm(), rtol=1e-4, atol=1e-5)


def test_the_order_of_the_models_only_permutes_the_experts():
    small = case("vit_tiny", count=3)
    backwards = dict(reversed(small.models.items()))
    one, other = (fuse("mixtral_merging", models, small.base) for models in (small.models, backwards))
    x = randn(9, 8, seed=1)
    torch.testing.assert_close(one(x), other(x), rtol=1e-4, atol=1e-5)
    first, second = (each.encoder["layers"][1].mlp.router for each in (one, other))
    assert torch.equal(first, second.flip(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"router_init": "hidden"},
        {"router_init": "cheap_embed"},
        {"prompts": {"a": ("x",)}},
        {"top_k": 0},
        {"modules": ()},
    ],
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValueError):
        MixtralMerging(**wrong)


def test_prompts_must_fit_the_models():
    method = MixtralMerging(router_init="hidden", prompts={"a": ("x",)})
    with pytest.raises(ConfigError, match="no prompts for b"):
        method.check(["a", "b"])
    stray = MixtralMerging(router_init="hidden", prompts={"a": ("x",), "b": ("y",), "c": ("z",)})
    with pytest.raises(ConfigError, match="prompts for c"):
        stray.check(["a", "b"])


def test_more_experts_a_token_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="top_k=4"):
        MixtralUpcycling(num_experts=3, top_k=4).check(["a"])
    with pytest.raises(ConfigError, match="top_k=3"):
        MixtralMerging(top_k=3).check(["a", "b"])


def test_prompts_without_a_tokenizer_say_what_to_do(tiny):
    base = tiny("bert")
    method = MixtralMerging(router_init="hidden", prompts={"a": ("x",), "b": ("y",)})
    with pytest.raises(MissingCapability, match="tokenizer"):
        fuse(method, {"a": tiny("bert", 1, base), "b": tiny("bert", 2, base)}, base)


def test_a_model_without_feed_forward_modules_is_refused_with_its_modules_names():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(UnsupportedArchitecture, match=r"modules are called 0, 1"):
        fuse("mixtral_upcycling", {"a": model})
    assert isinstance(fuse("mixtral_upcycling", {"a": model}, modules=("1",))[1], SparseMixture)
