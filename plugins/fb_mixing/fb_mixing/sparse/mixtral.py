"""Llama and Mistral models as Mixtral: a plain checkpoint that transformers loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fb_mixing.architectures import plain_config
from fb_mixing.pooled import model_tensor
from fusionbench_core import Fused, ModelPool

_SHARED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "sliding_window",
    "attention_dropout",
    "rope_parameters",
)
_MATRICES = ("gate_proj", "up_proj", "down_proj")


def mixtral_config(pool: ModelPool, experts: int, top_k: int) -> Any:
    """The config of a Mixtral that holds the pool's models, or None if they are no Llama or Mistral."""
    dense = plain_config(pool)
    names = pool.reference_model.checkpoint
    if getattr(dense, "model_type", None) not in ("llama", "mistral"):
        return None
    if any(key.endswith(".bias") for key in names) or "model.embed_tokens.weight" not in names:
        return None
    from transformers import MixtralConfig

    shared = {key: getattr(dense, key) for key in _SHARED if hasattr(dense, key)}
    return MixtralConfig(
        **shared,
        num_local_experts=experts,
        num_experts_per_tok=top_k,
        architectures=["MixtralForCausalLM"],
        dtype=names.info("model.embed_tokens.weight").dtype,
    )


def feed_forward_names(config: Any) -> dict[str, int]:
    """Name of each feed-forward module -> size of its input."""
    return {f"model.layers.{layer}.mlp": config.hidden_size for layer in range(config.num_hidden_layers)}


@torch.no_grad()
def as_mixtral(
    config: Any,
    pool: ModelPool,
    routers: Mapping[str, Tensor],
    rest: str | None,
    experts: Sequence[str | None],
) -> Fused:
    """A Mixtral whose experts are the models' feed-forward modules.

    Args:
        config: Its config.
        pool: Where the weights are read.
        routers: Name of a feed-forward module -> weights of its router, `(experts, in)`.
        rest: Model that everything else is taken from; None for the base.
        experts: Models that the experts come from; None for the base.
    """
    checkpoint = pool.checkpoint(rest)
    state = {
        key: checkpoint.tensor(key).clone()
        for key in checkpoint
        if ".mlp." not in key and key not in checkpoint.aliases
    }

    def read(model: str | None, key: str) -> Tensor:
        own = checkpoint.tensor(key)
        return own if model == rest else model_tensor(pool, str(model), key, own).to(own.dtype)

    for name, router in routers.items():
        matrices = {kind: [read(model, f"{name}.{kind}.weight") for model in experts] for kind in _MATRICES}
        pairs = zip(matrices["gate_proj"], matrices["up_proj"])
        state[f"{name}.experts.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in pairs])
        state[f"{name}.experts.down_proj"] = torch.stack(matrices["down_proj"])
        state[f"{name}.gate.weight"] = router.to(config.dtype)
    module = _module(config, state)
    total = sum(tensor.numel() for tensor in state.values())
    idle = (len(experts) - config.num_experts_per_tok) / len(experts)
    resting = idle * sum(tensor.numel() for key, tensor in state.items() if ".experts." in key)
    return Fused.of_checkpoint(
        module,
        assets={"config.json": config.to_json_string()},
        tensors=as_stored(state),
        details={
            "experts": len(experts),
            "parameters": total,
            "active_parameters": round(total - resting),
            "base_parameters": sum(
                checkpoint.info(key).numel for key in checkpoint if key not in checkpoint.aliases
            ),
        },
    )


def _module(config: Any, state: Mapping[str, Tensor]) -> nn.Module:
    from transformers import MixtralForCausalLM

    with torch.device("meta"):
        module = MixtralForCausalLM(config)
    module.load_state_dict(dict(state), strict=False, assign=True)
    module.tie_weights()
    # The one thing that a state dict does not hold.
    module.model.rotary_emb = type(module.model.rotary_emb)(config)
    return module.requires_grad_(False).eval()


def as_stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names and matrices of Mixtral's own files, which other programs read too; nothing is copied."""
    stored = {}
    for key, tensor in state.items():
        layer, _, kind = key.partition(".mlp.")
        moe = f"{layer}.block_sparse_moe"
        if not kind:
            stored[key] = tensor
        elif kind == "gate.weight":
            stored[f"{moe}.gate.weight"] = tensor
        elif kind == "experts.down_proj":
            stored |= {f"{moe}.experts.{index}.w2.weight": each for index, each in enumerate(tensor)}
        else:
            for index, each in enumerate(tensor):
                gate, up = each.chunk(2)
                stored |= {f"{moe}.experts.{index}.w1.weight": gate, f"{moe}.experts.{index}.w3.weight": up}
    return stored
