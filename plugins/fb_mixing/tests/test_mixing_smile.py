"""SMILE against its formula, written out in float64."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from fb_mixing.smile.builder import build_smile
from fb_mixing.smile.linear import SmileLinear
from fb_mixing.smile.method import SmileUpscaling
from torch import Tensor, nn

from fusionbench_core import (
    BuildContext,
    ConfigError,
    Fused,
    FusionJob,
    IncompatibleModels,
    Law,
    ModelPool,
    NonFiniteInput,
    PooledModel,
)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@torch.no_grad()
def filled(module: nn.Module, seed: int) -> nn.Module:
    for number, parameter in enumerate(module.parameters()):
        parameter.copy_(randn(*parameter.shape, seed=1000 * seed + number) * 0.5)
    return module.requires_grad_(False).eval()


@torch.no_grad()
def tuned(base: nn.Module, seed: int, only: str = "") -> nn.Module:
    expert = copy.deepcopy(base)
    for number, (name, parameter) in enumerate(expert.named_parameters()):
        if only in name:
            parameter.add_(randn(*parameter.shape, seed=77 * seed + number) * 0.2)
    return expert


def job(base: nn.Module, *experts: nn.Module, **options) -> FusionJob:
    models = {f"m{i}": PooledModel(f"m{i}", content=expert) for i, expert in enumerate(experts)}
    return FusionJob(pool=ModelPool(models, base=PooledModel("base", content=base), **options))


def linear(seed: int, out: int = 7, columns: int = 8, bias: bool = True) -> nn.Linear:
    return filled(nn.utils.skip_init(nn.Linear, columns, out, bias=bias), seed)  # type: ignore[return-value]


def mlp(seed: int = 0) -> nn.Module:
    layers = [
        nn.utils.skip_init(nn.Linear, 6, 16),
        nn.GELU(),
        nn.LayerNorm(16),
        nn.utils.skip_init(nn.Linear, 16, 4),
    ]
    return filled(nn.Sequential(*layers), seed)


def formula(x: Tensor, base: nn.Linear, experts: list[nn.Linear], k: int, gate_k: int, top_k: int) -> Tensor:
    """y = W0 x + b0 + sum over the top_k of g_t (U_t S_t V_t' x + db_t), one token at a time, in float64."""
    rows = []
    for token in x.double().reshape(-1, x.shape[-1]):
        logits, updates = [], []
        for expert in experts:
            u, s, vh = torch.linalg.svd(expert.weight.double() - base.weight.double(), full_matrices=False)
            logits.append((vh[:gate_k] @ token).norm())
            update = (u[:, :k] * s[:k]) @ vh[:k] @ token
            updates.append(update if base.bias is None else update + (expert.bias - base.bias).double())
        gates = torch.stack(logits).softmax(0)
        chosen = gates.argsort(descending=True)[:top_k]
        y = base.weight.double() @ token + (0 if base.bias is None else base.bias.double())
        rows.append(y + sum(gates[t] / gates[chosen].sum() * updates[t] for t in chosen))
    return torch.stack(rows).view(*x.shape[:-1], -1)


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize(("k", "gate_k"), [(1, 1), (2, 3), (3, 4), (7, 4), (-1, 2), (128, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_follows_the_formula(k, gate_k, top_k, bias):
    base = linear(0, bias=bias)
    experts = [linear(seed, bias=bias) for seed in (1, 2, 3)]
    fused = SmileUpscaling(k=k, gate_k=gate_k, top_k=top_k).fuse(job(base, *experts))
    x = randn(4, 9, 8, seed=42)
    expected = formula(x, base, experts, 7 if k == -1 else k, gate_k, top_k)
    torch.testing.assert_close(fused.module(x).double(), expected, rtol=1e-5, atol=1e-5)


def test_a_gate_never_spans_the_whole_input_space():
    fused = SmileUpscaling(gate_k=16).fuse(job(linear(0), linear(1), linear(2)))
    assert fused.module.gate.shape == (2, 4, 8)


@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 0), (2, 3, 4)])
@pytest.mark.parametrize("top_k", [1, 2])
def test_any_leading_dimensions_work(leading, top_k):
    fused = SmileUpscaling(top_k=top_k).fuse(job(linear(0), linear(1), linear(2)))
    x = randn(*leading, 8, seed=3)
    y = fused.module(x)
    assert y.shape == (*leading, 7)
    flat = fused.module(x.reshape(-1, 8)).reshape(*leading, 7)
    torch.testing.assert_close(y, flat)


def test_a_token_gets_the_same_whatever_else_is_in_the_batch():
    fused = SmileUpscaling(k=2, gate_k=2).fuse(job(mlp(), *(tuned(mlp(), seed) for seed in (1, 2, 3))))
    x = randn(50, 6, seed=9)
    alone = torch.cat([fused.module(row[None]) for row in x])
    torch.testing.assert_close(fused.module(x), alone)


def test_the_sign_of_singular_vectors_does_not_matter():
    fused = SmileUpscaling(k=2, gate_k=2).fuse(job(linear(0), linear(1), linear(2)))
    x = randn(20, 8, seed=1)
    expected = fused.module(x)
    fused.module.up.neg_()
    fused.module.down.neg_()
    fused.module.gate.neg_()
    torch.testing.assert_close(fused.module(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"average_experts": True}, {"k": -1}])
def test_experts_equal_to_the_base_leave_it_as_it_is(options):
    base = mlp()
    fused = SmileUpscaling(**options).fuse(job(base, *(copy.deepcopy(base) for _ in range(3))))
    assert fused.arguments["layers"] == {}
    assert fused.details["untrained_layers"] == ["0", "3"]
    state = fused.module.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in base.state_dict().items())


def test_one_expert_at_full_rank_is_that_expert():
    base = mlp()
    expert = tuned(base, 1)
    fused = SmileUpscaling(k=-1, average_experts=True).fuse(job(base, expert))
    x = randn(8, 6, seed=5)
    torch.testing.assert_close(fused.module(x), expert(x))
    assert fused.module[0].gate is None


def test_copies_of_one_expert_at_full_rank_are_that_expert():
    base = mlp()
    expert = tuned(base, 1)
    method = SmileUpscaling(k=-1, average_experts=True, top_k=2)
    assert {Law.IDENTICAL, Law.SINGLE} <= method.capabilities.laws
    fused = method.fuse(job(base, *(copy.deepcopy(expert) for _ in range(3))))
    x = randn(8, 6, seed=5)
    torch.testing.assert_close(fused.module(x), expert(x), rtol=1e-4, atol=1e-5)


def test_truncated_mixtures_do_not_promise_to_be_the_expert():
    assert SmileUpscaling().capabilities.laws == {Law.PERMUTATION, Law.BASE_FIXED_POINT}


@pytest.mark.parametrize("top_k", [1, 2])
def test_the_order_of_experts_does_not_matter(top_k):
    base = mlp()
    experts = [tuned(base, seed) for seed in (1, 2, 3)]
    method = SmileUpscaling(k=2, gate_k=2, top_k=top_k)
    x = randn(30, 6, seed=5)
    one = method.fuse(job(base, *experts)).module(x)
    other = method.fuse(job(base, *experts[::-1])).module(x)
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_token_in_one_experts_subspace_goes_to_that_expert():
    base = linear(0, 6, 6, bias=False)
    first, second = copy.deepcopy(base), copy.deepcopy(base)
    first.weight[:, :3] += randn(6, 3, seed=1)
    second.weight[:, 3:] += randn(6, 3, seed=2)
    fused = SmileUpscaling(gate_k=3).fuse(job(base, first, second))
    left = torch.cat([randn(10, 3, seed=3), torch.zeros(10, 3)], dim=1)
    torch.testing.assert_close(fused.module(left), first(left), rtol=1e-5, atol=1e-5)
    right = left.flip(1)
    torch.testing.assert_close(fused.module(right), second(right), rtol=1e-5, atol=1e-5)


def test_an_expert_that_never_trained_a_layer_is_not_chosen_there():
    base = linear(0)
    fused = SmileUpscaling().fuse(job(base, linear(1), copy.deepcopy(base)))
    _, chosen = fused.module.route(randn(40, 8, seed=2))
    assert not chosen.any()


def test_directions_of_singular_value_zero_stay_out_of_the_gate():
    base = linear(0, 12, 12, bias=False)
    expert = copy.deepcopy(base)
    expert.weight.zero_()
    base.weight.zero_()
    expert.weight[:2] = randn(2, 12, seed=4)
    fused = SmileUpscaling(gate_k=6).fuse(job(base, expert, linear(1, 12, 12, bias=False)))
    norms = fused.module.gate[0].norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([1.0, 1, 0, 0, 0, 0]))


def test_everything_but_mixtures_is_the_bases_or_the_mean_of_experts():
    base = mlp()
    experts = [tuned(base, seed) for seed in (1, 2, 3)]
    kept = SmileUpscaling().fuse(job(base, *experts)).module
    assert torch.equal(kept[2].weight, base[2].weight)
    averaged = SmileUpscaling(average_experts=True).fuse(job(base, *experts)).module
    mean = torch.stack([expert[2].weight.double() for expert in experts]).mean(0)
    torch.testing.assert_close(averaged[2].weight.double(), mean, rtol=1e-6, atol=1e-6)
    assert torch.equal(averaged[0].weight, base[0].weight)


def test_layers_out_of_scope_and_heads_stay_the_bases():
    base = mlp()
    experts = [tuned(base, seed) for seed in (1, 2)]
    fused = SmileUpscaling(average_experts=True).fuse(job(base, *experts, heads=("3.*",)))
    assert list(fused.arguments["layers"]) == ["0"]
    assert torch.equal(fused.module[3].weight, base[3].weight)
    assert torch.equal(fused.module[3].bias, base[3].bias)


class TiedNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 6, _weight=torch.zeros(10, 6))
        self.middle = nn.utils.skip_init(nn.Linear, 6, 6)
        self.head = nn.utils.skip_init(nn.Linear, 6, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.middle(self.embedding(ids)))


@pytest.mark.parametrize("average", [True, False])
def test_tied_layers_stay_tied_and_are_no_mixtures(average):
    base = filled(TiedNet(), 0)
    experts = [tuned(base, seed) for seed in (1, 2)]
    fused = SmileUpscaling(average_experts=average).fuse(job(base, *experts))
    assert fused.details["tied_layers"] == ["head"]
    assert list(fused.arguments["layers"]) == ["middle"]
    module = fused.module
    assert module.head.weight is module.embedding.weight
    expected = base.head.weight.double()
    if average:
        expected = (experts[0].head.weight.double() + experts[1].head.weight.double()) / 2
    torch.testing.assert_close(module.head.weight.double(), expected, rtol=1e-6, atol=1e-6)


def encoder() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu", dropout=0.0)
        return filled(nn.TransformerEncoder(layer, 2, enable_nested_tensor=True), 0)


@pytest.mark.parametrize("grad", [True, False])
def test_the_fused_path_of_transformer_layers_does_not_skip_the_mixtures(grad):
    base = encoder()
    expert = tuned(base, 1, only="linear")
    fused = SmileUpscaling(k=-1).fuse(job(base, expert))
    expert.use_nested_tensor = False
    assert sorted(fused.arguments["layers"]) == [f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)]
    x, padding = randn(2, 5, 8, seed=3), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(fused.module(x), expert(x), rtol=1e-4, atol=1e-4)
        found = fused.module(x, src_key_padding_mask=padding)
        expected = expert(x, src_key_padding_mask=padding)
    torch.testing.assert_close(found[~padding], expected[~padding], rtol=1e-4, atol=1e-4)


def test_packed_attention_stays_the_bases():
    base = encoder()
    expert = tuned(base, 1)
    fused = SmileUpscaling().fuse(job(base, expert))
    attention = fused.module.layers[0].self_attn
    assert torch.equal(attention.in_proj_weight, base.layers[0].self_attn.in_proj_weight)
    assert torch.equal(attention.out_proj.weight, base.layers[0].self_attn.out_proj.weight)


def rebuilt(fused: Fused, base: nn.Module) -> nn.Module:
    """What the core does on loading: arguments through JSON, an empty module, tensors loaded strictly."""

    def skeleton() -> nn.Module:
        return filled(copy.deepcopy(base), 99)

    def member(name: str) -> nn.Module:
        raise AssertionError("a mixture refers to no member")

    arguments = json.loads(json.dumps(fused.arguments))
    module = build_smile(BuildContext(arguments=arguments, skeleton=skeleton, member=member))
    module.load_state_dict(fused.module.state_dict(), strict=True)
    return module


@pytest.mark.parametrize(
    ("options", "experts"),
    [({"k": 1, "gate_k": 2}, 3), ({"k": 2}, 1), ({"k": -1}, 1), ({"k": -1}, 3), ({"k": 2, "top_k": 2}, 3)],
)
@pytest.mark.parametrize("make", [mlp, lambda: linear(0)], ids=["mlp", "one layer"])
def test_the_builder_makes_the_same_module_again(options, experts, make):
    base = make()
    fused = SmileUpscaling(**options).fuse(job(base, *(tuned(base, seed) for seed in range(1, experts + 1))))
    again = rebuilt(fused, base)
    x = randn(9, next(base.parameters()).shape[1], seed=1)
    assert torch.equal(again(x), fused.module(x))
    assert not any(module.training for module in again.modules())


def test_the_builder_keeps_transformer_layers_from_skipping_the_mixtures():
    base = encoder()
    fused = SmileUpscaling(k=2).fuse(job(base, tuned(base, 1), tuned(base, 2)))
    x = randn(2, 5, 8, seed=3)
    with torch.no_grad():
        assert torch.equal(rebuilt(fused, base)(x), fused.module(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_of_the_base_is_kept(dtype):
    base = mlp().to(dtype)
    experts = [tuned(base, seed) for seed in (1, 2)]
    module = SmileUpscaling(k=-1, average_experts=True).fuse(job(base, *experts)).module
    assert {tensor.dtype for tensor in module.state_dict().values()} == {dtype}
    x = randn(7, 6, seed=1).to(dtype)
    y = module(x)
    assert y.dtype == dtype
    assert torch.isfinite(y).all()


def test_the_inputs_the_global_generator_and_gradients_are_left_alone():
    base = mlp()
    experts = [tuned(base, seed) for seed in (1, 2)]
    base.train()
    before = [copy.deepcopy(model.state_dict()) for model in (base, *experts)]
    state = torch.get_rng_state()
    fused = SmileUpscaling(average_experts=True).fuse(job(base, *experts))
    assert torch.equal(torch.get_rng_state(), state)
    assert base.training
    for model, saved in zip((base, *experts), before):
        assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    taken = {tensor.data_ptr() for model in (base, *experts) for tensor in model.state_dict().values()}
    assert not taken & {tensor.data_ptr() for tensor in fused.module.state_dict().values()}
    assert not any(parameter.requires_grad for parameter in fused.module.parameters())
    assert not any(module.training for module in fused.module.modules())


def test_a_mixture_can_be_trained_further():
    module = SmileUpscaling(k=2, gate_k=2, top_k=2).fuse(job(linear(0), linear(1), linear(2))).module
    module.requires_grad_(True)
    module(randn(6, 8, seed=1)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_parameters_are_counted_as_in_the_paper():
    """ViT-B/32 with 8 experts, gate_k 16, k 128: 268.5 million parameters (FusionBench, SMILE example)."""
    shapes = [(768, 768)] * 4 + [(768, 3072), (3072, 768)]
    with torch.device("meta"):
        layers = [SmileLinear(a, b, experts=8, gate_k=16, k=128) for a, b in shapes]
    added = sum(p.numel() for m in layers for p in m.parameters()) - sum(a * b + b for a, b in shapes)
    assert (87.456e6 + 12 * added) / 1e6 == pytest.approx(268.5, abs=0.2)


def test_details_count_parameters():
    base = mlp()
    fused = SmileUpscaling(k=2, gate_k=3).fuse(job(base, *(tuned(base, seed) for seed in (1, 2, 3))))
    own = 6 * 16 + 16 + 32 + 16 * 4 + 4
    gates = 3 * 3 * 6 + 3 * 3 * 16
    expert = 2 * (6 + 16) + 16 + 2 * (16 + 4) + 4
    assert fused.details["base_parameters"] == own
    assert fused.details["parameters"] == own + gates + 3 * expert
    assert fused.details["active_parameters"] == own + gates + expert
    json.dumps(dict(fused.details))


def test_an_update_is_stored_whole_where_that_is_smaller():
    fused = SmileUpscaling(k=4).fuse(job(linear(0), linear(1), linear(2)))
    assert fused.arguments["layers"][""]["k"] == -1
    update = fused.module.delta[0].double()
    u, s, vh = torch.linalg.svd((linear(1).weight - linear(0).weight).double(), full_matrices=False)
    torch.testing.assert_close(update, (u[:, :4] * s[:4]) @ vh[:4], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"k": 0}, {"k": -2}, {"gate_k": 0}, {"top_k": 0}, {"rank": 4}, {"k": "many"}, {"gate_k": -1}]
)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError):
        SmileUpscaling(**wrong)


def test_more_experts_a_token_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="top_k=3"):
        SmileUpscaling(top_k=3).check(["a", "b"])
    SmileUpscaling(top_k=2).check(["a", "b"])


def test_a_model_that_does_not_fit_is_named_with_its_tensor():
    with pytest.raises(IncompatibleModels, match="'m1'") as caught:
        SmileUpscaling().fuse(job(linear(0), linear(1), linear(2, out=8)))
    assert caught.value.where["tensor"] == "weight"


def test_weights_that_are_not_finite_are_named_with_their_model():
    broken = linear(2)
    broken.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteInput, match="'m1'") as caught:
        SmileUpscaling().fuse(job(linear(0), linear(1), broken))
    assert caught.value.where["tensor"] == "weight"
