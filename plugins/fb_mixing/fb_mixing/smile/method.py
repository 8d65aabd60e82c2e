"""SMILE up-scaling."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fb_mixing.modules import count, dotted, keep_forward, put_module
from fb_mixing.pooled import merge_into, task_tensor
from fb_mixing.smile.decomposition import decompose
from fb_mixing.smile.linear import SmileLinear
from fb_mixing.smile.records import SMILE_UPSCALING
from fusionbench_core import (
    Capabilities,
    ConfigError,
    Fused,
    FusionJob,
    Law,
    ModelMethod,
    ModelPool,
    implements,
)

_DECOMPOSING = 10
"""What the decomposition of an update takes, in copies of it: also the update, its layer and the new one."""


@implements(SMILE_UPSCALING)
class SmileUpscaling(ModelMethod):
    r"""SMILE: turn each linear layer into the base's layer plus a sparse mixture of low-rank experts.

    For a linear layer with base weight $W_0$ `(out, in)` and experts $W_t$, let
    $W_t - W_0 = U_t \Sigma_t V_t^\top$ be the singular value decomposition. A token $x$ `(in,)` gives

    $$y = W_0 x + b_0 + \sum_{t \in \mathrm{top}_k(r)} g_t
          \left(U_{t,:k} \Sigma_{t,:k} V_{t,:k}^\top x + b_t - b_0\right), \qquad
      r_t = \lVert V_{t,:k_{gate}}^\top x \rVert_2, \qquad g = \mathrm{softmax}(r)$$

    with $g$ renormalised over the chosen experts. Nothing is trained and no data is seen.

    What becomes a mixture: every `nn.Linear` of the pool's scope whose weight differs from the base's
    in some expert. Everything else is the base's, or with `average_experts` the mean of the experts:
    embeddings, norms, convolutions, `nn.MultiheadAttention` (it reads its weights without calling a
    layer), subclasses of `nn.Linear`, and layers whose weight is tied to another tensor, such as a
    language-model head tied to the embedding.

    Notes:
        Defaults are those of the ViT-B/32 example of FusionBench. Deviations from it, none of which
        matters for wide layers that were fully fine-tuned: singular directions whose singular value is
        zero up to rounding are left out of the gate, so that an expert that never trained a layer has
        logit 0 there and not that of arbitrary directions; `gate_k` is at most half of `in`, since a
        gate that spans the whole input space cannot tell experts apart; an update is stored whole
        where that takes fewer numbers than its two factors, and exactly where nothing is cut off;
        decompositions are in fp32 (fp64 for fp64 models). A layer whose biases alone were trained is
        no mixture: nothing in it could choose an expert.

    Reference:
        Tang et al., SMILE: Zero-Shot Sparse Mixture of Low-Rank Experts Construction From
        Pre-Trained Foundation Models, arXiv:2408.10174.
    """

    gate_k: PositiveInt = Field(
        default=16, description="singular directions of an update that the gate looks at"
    )
    k: Literal[-1] | PositiveInt = Field(
        default=128, description="rank of an expert's update; -1 keeps it whole"
    )
    top_k: PositiveInt = Field(default=1, description="experts that see a token")
    average_experts: bool = Field(
        default=False,
        description="average the experts in all that is no mixture, instead of taking the base's",
    )

    @property
    def capabilities(self) -> Capabilities:
        record = self.record.capabilities
        if self.k == -1 and self.average_experts:
            return replace(record, laws=record.laws | {Law.IDENTICAL, Law.SINGLE})
        return record

    def check(self, models: Sequence[str]) -> None:
        """At least `top_k` experts.

        Raises:
            ConfigError: if there are fewer.
        """
        if self.top_k > len(models):
            raise ConfigError(
                f"top_k={self.top_k} experts are to see each token, and the pool has {len(models)}",
                fix=f"set method.top_k to at most {len(models)}",
                config="method.top_k",
            )

    def memory(self, pool: ModelPool) -> int:
        """The base, the experts as they are stored, and the decomposition of the largest update.

        LAPACK takes a matrix apart in a copy of it, with four more to work in; the result is two. Of
        matrices whose names tell that they are no linear layers, none is counted.
        """
        checkpoint = pool.checkpoint()
        keys = (key for key in checkpoint if pool.merges(key) and "embed" not in key)
        shapes = [info.shape for info in map(checkpoint.info, keys) if len(info.shape) == 2]
        experts = len(pool) * sum(self._expert_entries(*shape) for shape in shapes)
        sizes = [math.prod(shape) for shape in shapes]
        return pool.live_bytes() + 4 * (experts + _DECOMPOSING * max(sizes, default=0))

    def _expert_entries(self, rows: int, columns: int) -> int:
        factors = self.k * (rows + columns)
        update = rows * columns if self.k == -1 else min(factors, rows * columns)
        return update + min(self.gate_k, rows) * columns + rows

    @torch.no_grad()
    def fuse(self, job: FusionJob) -> Fused:
        module = job.pool.module()
        base_parameters = active = count(module)
        layers, tied = linear_layers(module, job.pool)
        names = list(layers)
        shapes: dict[str, dict[str, Any]] = {}
        for done, name in enumerate(names):
            job.progress(done, len(names), name)
            linear = layers.pop(name)  # The last to hold it once it is replaced.
            if not is_trained(linear, name, job.pool):
                continue
            shapes[name] = self._shape(linear, len(job.pool))
            mixture = self._mixture(linear, name, job.pool, shapes[name])
            active += mixture.active_parameters - count(linear)
            module = put_module(module, name, mixture)
        job.progress(len(names), len(names))
        if self.average_experts:
            merge_into(module, job.pool, leave=shapes)
        keep_forward(module)
        return Fused.of_module(
            module.requires_grad_(False).eval(),
            builder="mixing/smile",
            arguments={"layers": shapes},
            details={
                "parameters": count(module),
                "base_parameters": base_parameters,
                "active_parameters": active,
                "mixtures": len(shapes),
                "untrained_layers": sorted(set(names) - shapes.keys()),
                "tied_layers": tied,
            },
        )

    def _shape(self, linear: nn.Linear, experts: int) -> dict[str, Any]:
        rows, columns = linear.weight.shape
        factored = self.k != -1 and self.k * (rows + columns) < rows * columns
        return {
            "in_features": columns,
            "out_features": rows,
            "experts": experts,
            # a gate that spans the whole input space sees only the length of x, the same for all experts
            "gate_k": min(self.gate_k, rows, max(columns // 2, 1)),
            "k": self.k if factored else -1,
            "top_k": self.top_k,
            "bias": linear.bias is not None,
        }

    def _mixture(self, linear: nn.Linear, name: str, pool: ModelPool, shape: dict[str, Any]) -> SmileLinear:
        mixture = SmileLinear(**shape, dtype=linear.weight.dtype, device=linear.weight.device)
        mixture.weight.copy_(linear.weight)
        if linear.bias is not None:
            mixture.bias.copy_(linear.bias)
        for expert, model in enumerate(pool):
            self._add_expert(mixture, expert, task_tensor(pool, model, dotted(name, "weight"), linear.weight))
            if linear.bias is not None:
                mixture.delta_bias[expert] = task_tensor(pool, model, dotted(name, "bias"), linear.bias)
        return mixture

    def _add_expert(self, mixture: SmileLinear, expert: int, update: Tensor) -> None:
        whole = self.k == -1 or self.k >= min(update.shape)
        if whole and mixture.gate is None:
            mixture.delta[expert] = update
            return
        parts = decompose(update, min(update.shape) if whole else self.k, mixture.gate_k)
        if mixture.gate is not None:
            mixture.gate[expert] = parts.gate
        if mixture.delta is not None:
            mixture.delta[expert] = update if whole else parts.up @ parts.down
        else:
            mixture.up[expert] = parts.up
            mixture.down[expert] = parts.down


def linear_layers(module: nn.Module, pool: ModelPool) -> tuple[dict[str, nn.Linear], list[str]]:
    """The linear layers in scope by dotted name, and the names of those left out because they are tied."""
    uses = Counter(id(tensor) for _, tensor in module.named_parameters(remove_duplicate=False))
    layers, tied = {}, []
    for name, layer in module.named_modules():
        # subclasses have a forward, or readers of their weights, of their own
        if type(layer) is not nn.Linear or not pool.merges(dotted(name, "weight")):
            continue
        if any(uses[id(tensor)] > 1 for tensor in layer.parameters()):
            tied.append(name)
        else:
            layers[name] = layer
    return layers, tied


def is_trained(linear: nn.Linear, name: str, pool: ModelPool) -> bool:
    """Whether the weight of some model differs from the base's."""
    return any(bool(task_tensor(pool, model, dotted(name, "weight"), linear.weight).any()) for model in pool)
