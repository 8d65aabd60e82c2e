"""Pruning of sparse mixtures against formulas written out in float64, on a tiny Mixtral."""

from __future__ import annotations

import copy
import json
from itertools import combinations

import pytest
import torch
from fb_mixing.pruning.expert_sparsity import ExpertSparsity
from fb_mixing.pruning.moe_pruner import MoEPruner, highest
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench_core import Batch, ConfigError, MissingCapability, UnsupportedArchitecture, fuse, load
from fusionbench_core.testing.zoo import ZooTask, case

EXPERTS, TOP_K = 4, 2


class Texts(ZooTask):
    """Random words, a few of them padding."""

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64):
        assert split == "train"
        assert not labelled
        generator = torch.Generator().manual_seed(5)
        ids = torch.randint(0, 32, (min(limit or 12, 12), 6), generator=generator)
        mask = torch.ones_like(ids)
        mask[::3, 4:] = 0
        for rows in torch.arange(len(ids)).split(batch_size):
            yield Batch({"input_ids": ids[rows], "attention_mask": mask[rows]}, None, rows)


TASKS = {"a": Texts(name="a")}
TOKENS = int(next(TASKS["a"].batches("train", labelled=False)).inputs["attention_mask"].sum())


@pytest.fixture(scope="module")
def mixtral():
    """A random Mixtral of two layers, four experts each."""
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        vocab_size=32, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=12, num_local_experts=EXPERTS, num_experts_per_tok=TOP_K,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = transformers.MixtralForCausalLM(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return model


def tokens_of(model: nn.Module, layer: int) -> Tensor:
    """What the mixture of a layer sees of the words that count, `(n, in)` in float64."""
    caught = []
    block = model.model.layers[layer].mlp
    hook = block.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    (batch,) = TASKS["a"].batches("train", labelled=False)
    model(**batch.inputs)
    hook.remove()
    return caught[0][batch.inputs["attention_mask"].bool()].double()


def expert(block: nn.Module, number: int, x: Tensor) -> Tensor:
    w1, w3 = block.experts.gate_up_proj[number].double().chunk(2)
    return (F.silu(x @ w1.T) * (x @ w3.T)) @ block.experts.down_proj[number].double().T


def gates_of(block: nn.Module, x: Tensor, kept: tuple[int, ...]) -> list[dict[int, float]]:
    """For each token: expert -> its gate, softmax over the best two of those kept."""
    found = []
    for logits in x @ block.gate.weight.double().T:
        best = sorted(kept, key=lambda t: -float(logits[t]))[:TOP_K]
        gates = torch.stack([logits[t] for t in best]).softmax(0)
        found.append(dict(zip(best, gates.tolist())))
    return found


def mixture(block: nn.Module, x: Tensor, kept: tuple[int, ...]) -> Tensor:
    each = [expert(block, number, x) for number in range(EXPERTS)]
    gates = gates_of(block, x, kept)
    rows = [sum(g * each[t][row] for t, g in token.items()) for row, token in enumerate(gates)]
    return torch.stack(rows)


def best_set(block: nn.Module, x: Tensor, wanted: Tensor, size: int) -> tuple[int, ...]:
    return min(
        combinations(range(EXPERTS), size), key=lambda kept: float((mixture(block, x, kept) - wanted).norm())
    )


def pruned(model: nn.Module, layer: int, kept: tuple[int, ...]) -> nn.Module:
    """A copy in which other experts than those kept are never chosen."""
    twin = copy.deepcopy(model)
    block = twin.model.layers[layer].mlp
    lost = [number for number in range(EXPERTS) if number not in kept]

    def forward(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = F.linear(tokens, block.gate.weight)
        logits[:, lost] = -torch.inf
        best, chosen = logits.topk(TOP_K, dim=-1)
        return logits, best.softmax(-1), chosen

    block.gate.forward = forward
    return twin


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("batch_size", [5, 12])
def test_the_experts_that_stay_reproduce_the_mixture_best(mixtral, size, batch_size):
    method = ExpertSparsity(num_experts=size, batch_size=batch_size)
    found = fuse(method, {"a": mixtral}, tasks=TASKS)
    for layer in range(2):
        block, x = mixtral.model.layers[layer].mlp, tokens_of(mixtral, layer)
        assert len(x) == TOKENS
        kept = list(best_set(block, x, mixture(block, x, tuple(range(EXPERTS))), size))
        left = found.model.layers[layer].mlp
        assert torch.equal(left.gate.weight, block.gate.weight[kept])
        assert torch.equal(left.experts.gate_up_proj, block.experts.gate_up_proj[kept])
        assert torch.equal(left.experts.down_proj, block.experts.down_proj[kept])


def test_progressive_pruning_sees_what_pruned_layers_give(mixtral):
    found = fuse(ExpertSparsity(num_experts=2, progressive=True), {"a": mixtral}, tasks=TASKS)
    everyone = tuple(range(EXPERTS))
    first, second = (layer.mlp for layer in mixtral.model.layers)
    x = tokens_of(mixtral, 0)
    kept = best_set(first, x, mixture(first, x, everyone), 2)
    assert torch.equal(found.model.layers[0].mlp.gate.weight, first.gate.weight[list(kept)])
    wanted = mixture(second, tokens_of(mixtral, 1), everyone)
    then = best_set(second, tokens_of(pruned(mixtral, 0, kept), 1), wanted, 2)
    assert torch.equal(found.model.layers[1].mlp.gate.weight, second.gate.weight[list(then)])


def test_a_pruned_mixtral_is_a_mixtral_that_transformers_loads(mixtral, tmp_path):
    pytest.importorskip("fb_nlp_tasks")
    import transformers

    copy.deepcopy(mixtral).bfloat16().save_pretrained(tmp_path / "whole")
    out = fuse(ExpertSparsity(num_experts=3), {"a": tmp_path / "whole"}, tasks=TASKS, output=tmp_path / "out")
    assert json.loads((out / "fusion.json").read_text())["builder"] is None
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert (theirs.config.num_local_experts, theirs.dtype) == (3, torch.bfloat16)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    in_memory = fuse(ExpertSparsity(num_experts=3), {"a": load(tmp_path / "whole")}, tasks=TASKS)
    for model in (theirs.float(), load(out)):
        torch.testing.assert_close(model(ids).logits, in_memory(ids).logits, rtol=1e-4, atol=1e-5)


def test_tokens_skip_their_second_expert_where_its_gate_is_below_the_median(mixtral, tmp_path):
    pytest.importorskip("fb_nlp_tasks")
    mixtral.save_pretrained(tmp_path / "whole")
    method = ExpertSparsity(num_experts=EXPERTS, skipping=True)
    out = fuse(method, {"a": tmp_path / "whole"}, tasks=TASKS, output=tmp_path / "out")
    found = load(out).model.layers[0].mlp
    block, x = mixtral.model.layers[0].mlp, tokens_of(mixtral, 0)
    gates = gates_of(block, x, tuple(range(EXPERTS)))
    ratios = sorted(min(token.values()) / max(token.values()) for token in gates)
    middle = len(ratios) // 2
    median = ratios[middle] if len(ratios) % 2 else (ratios[middle - 1] + ratios[middle]) / 2
    assert float(found.gate.beta) == pytest.approx(median, rel=1e-5)
    rows = []
    for row, token in enumerate(gates):
        if min(token.values()) < median * max(token.values()):
            token = {max(token, key=token.__getitem__): 1.0}
        rows.append(sum(g * expert(block, t, x[row]) for t, g in token.items()))
    torch.testing.assert_close(found(x[None].float())[0].double(), torch.stack(rows), rtol=1e-4, atol=1e-5)


def scores(block: nn.Module, x: Tensor, number: int) -> dict[str, Tensor]:
    """|W| times the norm of its inputs, each times the gate, over the tokens of an expert."""
    mine = [(row, token[number]) for row, token in enumerate(gates_of(block, x, tuple(range(EXPERTS))))
            if number in token]  # fmt: skip
    w1, w3 = block.experts.gate_up_proj[number].double().chunk(2)
    hidden = [F.silu(w1 @ x[row]) * (w3 @ x[row]) for row, _ in mine]
    norms = {
        "gate_up_proj": sum(((g * x[row]) ** 2 for row, g in mine), torch.zeros(8)).sqrt(),
        "down_proj": sum(((g * h) ** 2 for (_, g), h in zip(mine, hidden)), torch.zeros(12)).sqrt(),
    }
    return {key: getattr(block.experts, key)[number].double().abs() * norm for key, norm in norms.items()}


@pytest.mark.parametrize("options", [{}, {"density": 0.25}, {"n": 2, "m": 4}])
def test_the_best_entries_of_each_row_of_the_experts_stay(mixtral, options):
    found = fuse(MoEPruner(**options), {"a": mixtral}, tasks=TASKS)
    model = copy.deepcopy(mixtral)
    for layer in range(2):
        # What earlier layers give is that of their pruned weights.
        block, x = model.model.layers[layer].mlp, tokens_of(model, layer)
        for number in range(EXPERTS):
            for key, score in scores(block, x, number).items():
                weight = getattr(block.experts, key)[number]
                m = options.get("m", weight.shape[1])
                n = options.get("n", round(options.get("density", 0.5) * m))
                blocks = score.unflatten(1, (-1, m))
                edge = blocks.sort(dim=-1, descending=True).values[..., n - 1 : n]
                wanted = weight * (blocks >= edge).flatten(1)
                assert torch.equal(getattr(found.model.layers[layer].mlp.experts, key)[number], wanted)
        block.experts = copy.deepcopy(found.model.layers[layer].mlp.experts)
    others = [name for name, _ in mixtral.named_parameters() if ".experts." not in name]
    assert all(torch.equal(found.get_parameter(name), mixtral.get_parameter(name)) for name in others)


def test_an_expert_that_sees_no_token_keeps_its_largest_weights():
    small = case("mixtures", count=1)
    (model,) = small.models.values()
    block = model.mixtures[0]
    # Two experts on each side of a plane, and the last one never among the best two.
    block.gate.weight.copy_(torch.tensor([2.0, 1.0, -1.0, -2.0, 0.0])[:, None] * block.gate.weight[0])
    found = fuse(MoEPruner(), small.models, tasks=small.tasks).mixtures[0].experts.down_proj[-1]
    weight = block.experts.down_proj[-1]
    edge = weight.abs().sort(dim=-1, descending=True).values[:, 3:4]
    assert torch.equal(found, weight * (weight.abs() >= edge))


def test_a_mixtral_with_pruned_weights_loads_with_transformers(mixtral, tmp_path):
    pytest.importorskip("fb_nlp_tasks")
    import transformers

    mixtral.save_pretrained(tmp_path / "whole")
    out = fuse(MoEPruner(n=1, m=4), {"a": tmp_path / "whole"}, tasks=TASKS, output=tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(out)
    zeros = [(layer.mlp.experts.down_proj == 0).double().mean() for layer in theirs.model.layers]
    assert [float(share) for share in zeros] == [0.75, 0.75]
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    torch.testing.assert_close(theirs(ids).logits, load(out)(ids).logits)


def test_a_short_last_block_keeps_as_many_entries_and_ties_keep_the_first():
    score = torch.tensor([[1.0, 3.0, 2.0, 5.0, 4.0], [7.0, 7.0, 7.0, 0.0, 0.0]])
    wanted = torch.tensor([[0, 1, 1, 1, 1], [1, 1, 0, 1, 1]]).bool()
    assert torch.equal(highest(score, 2, 3), wanted)


@pytest.mark.parametrize("wrong", [{"n": 2}, {"m": 4}, {"n": 3, "m": 2}, {"n": 1, "m": 2, "density": 0.3}])
def test_blocks_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError):
        MoEPruner(**wrong)


@pytest.mark.parametrize("size", [1, 5])
def test_as_many_experts_stay_as_a_token_sees(mixtral, size):
    with pytest.raises(ConfigError, match=f"{size} experts cannot be kept of the 4"):
        fuse(ExpertSparsity(num_experts=size), {"a": mixtral}, tasks=TASKS)


def test_a_model_without_mixtures_and_one_without_a_task_are_refused():
    dense, small = case("vit_tiny", count=1), case("mixtures", count=1)
    with pytest.raises(UnsupportedArchitecture, match="no sparse mixture"):
        fuse(ExpertSparsity(), dense.models, tasks=dense.tasks)
    with pytest.raises(MissingCapability, match="no task for model 'alpha'"):
        fuse(MoEPruner(), small.models, tasks={"b": ZooTask(name="b")})
