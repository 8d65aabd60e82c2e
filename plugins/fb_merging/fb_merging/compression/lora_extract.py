"""A LoRA adapter from a model that was trained whole."""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fb_merging.compression.of_rank import OfRank
from fb_merging.compression.records import LORA_EXTRACT
from fb_merging.operations.matrices import named
from fb_merging.operations.svd import Factors, sketching
from fb_merging.operations.vectors import norm
from fusionbench_core import (
    Adapter,
    Capabilities,
    ConfigError,
    Fused,
    FusionJob,
    ModelMethod,
    ModelPool,
    UnsupportedArchitecture,
    implements,
    is_transposed,
)

Patterns = tuple[str, ...]
Fate = Literal["low_rank", "whole", "base"]


@implements(LORA_EXTRACT)
class LoraExtract(OfRank, ModelMethod):
    r"""What a model adds to its base, as a LoRA adapter: the best one of its rank.

    For every linear layer and embedding, with $\theta - \theta_0 = \sum_i \sigma_i\,u_i v_i^\top$,
    $\sigma_1 \ge \sigma_2 \ge \dots$:

    $$\theta' = \theta_0 + B A, \qquad
      B = (\sqrt{\sigma_1} u_1 \dots \sqrt{\sigma_k} u_k), \qquad
      A = (\sqrt{\sigma_1} v_1 \dots \sqrt{\sigma_k} v_k)^\top$$

    Notes:
        The artefact is an adapter that `peft.PeftModel.from_pretrained(base, PATH)` loads; it names the base
        and does not hold it. $k$ is `rank`, or with `energy`, layer by layer, the least for which
        $\sum_{i \le k} \sigma_i^2$ is that fraction of the whole. Layers that did not change are left out.
        All other tensors that changed (biases, norms, convolutions) are stored whole, in place of the base's,
        unless `others="base"`: PEFT loads them, tools that know nothing but factors may not.
        Weights that layers share cannot be adapted in one of them: leave them to the base by name, or with
        `embeddings="base"`.
        `factorization="randomized"` finds the triplets from a random sketch, whose error
        `operations.svd.randomized_svd` bounds.

    Reference:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, arXiv:2106.09685.
        Eckart and Young, The Approximation of One Matrix by Another of Lower Rank, Psychometrika 1936.
    """

    embeddings: Fate = Field(
        default="low_rank", description="embeddings: factorise, store whole, or leave as the base's"
    )
    whole: Patterns = Field(
        default=(), description="glob patterns of tensors to store whole, e.g. of a new classification head"
    )
    exclude: Patterns = Field(default=(), description="glob patterns of tensors to leave as the base's")
    others: Literal["whole", "base"] = Field(
        default="whole", description="biases, norms, …: store whole, or leave as the base's"
    )

    @property
    def capabilities(self) -> Capabilities:
        return sketching(self.record.capabilities, self)

    def fuse(self, job: FusionJob) -> Fused:
        pool, (model,) = job.pool, job.pool.names
        module = pool.module()
        changed = [name for name in pool.checkpoint() if pool.merges(name) and _differs(pool, model, name)]
        factors, whole, errors = {}, {}, {}
        for place, name in enumerate(changed):
            fate, layer = self._fate(module, name), _layer_of(module, name)
            if fate == "low_rank":
                delta = _delta(pool, model, name)
                draw = partial(torch.rand, delta.shape, generator=job.generator(model, name))
                found = self.leading(delta, draw)
                factors[name.removesuffix(".weight")] = _balanced(found, delta.dtype, is_transposed(layer))
                errors[name] = norm(delta.double() - found.product()) / norm(delta)
            elif fate == "whole":
                whole[name] = pool.checkpoint(model).tensor(name)
            job.progress(place + 1, len(changed), name)
        if not factors:
            factors = _no_change(module)
        return Fused.of_adapter(
            Adapter(factors, whole),
            module,
            details={
                "rank": {name: len(a) for name, (a, _) in factors.items()},
                "relative_error": errors,
                "stored_whole": sorted(whole),
            },
        )

    def _fate(self, module: nn.Module, name: str) -> Fate:
        names = _sharing(module, name)
        fates: set[Fate] = {self._fate_alone(each, _layer_of(module, each)) for each in names}
        if "base" in fates:
            return "base"
        if len(names) > 1:
            raise ConfigError(
                f"{names[0]} and {names[1]} share their weights, an adapter would change only one of them",
                config="method.exclude",
                fix=f"leave them to the base: method.exclude=[{names[0]}], or method.embeddings=base",
            )
        return fates.pop()

    def _fate_alone(self, name: str, layer: nn.Module | None) -> Fate:
        if named(name, self.exclude):
            return "base"
        if named(name, self.whole):
            return "whole"
        if isinstance(layer, nn.Embedding):
            return self.embeddings
        if isinstance(layer, nn.Linear) or is_transposed(layer):
            return "low_rank"
        return self.others


def _differs(pool: ModelPool, model: str, name: str) -> bool:
    return not torch.equal(pool.checkpoint(model).tensor(name), pool.checkpoint().tensor(name))


def _delta(pool: ModelPool, model: str, name: str) -> Tensor:
    """The task matrix, in fp32 or more."""
    tuned, base = pool.checkpoint(model).tensor(name), pool.checkpoint().tensor(name)
    wide = torch.promote_types(torch.promote_types(tuned.dtype, base.dtype), torch.float32)
    return tuned.to(wide) - base.to(wide)


def _layer_of(module: nn.Module, name: str) -> nn.Module | None:
    """The layer whose weight a tensor is, if it is one's."""
    layer, _, own = name.rpartition(".")
    return module.get_submodule(layer) if layer and own == "weight" else None


def _no_change(module: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """Zeros for one layer: PEFT loads no adapter without factors."""
    for name, layer in module.named_modules():
        if name and isinstance(layer, nn.Linear):
            return {name: (torch.zeros(1, layer.in_features), torch.zeros(layer.out_features, 1))}
    raise UnsupportedArchitecture("a LoRA adapter needs a linear layer, and the model has none")


def _balanced(found: Factors, dtype: torch.dtype, transposed: bool) -> tuple[Tensor, Tensor]:
    """A `(k, in)` and B `(out, k)`, of equal norms."""
    root = found.s.sqrt()
    left, right = found.u * root, (found.vh.T * root).T
    a, b = (left.T, right.T) if transposed else (right, left)
    return a.to(dtype).contiguous(), b.to(dtype).contiguous()


def _sharing(module: nn.Module, name: str) -> list[str]:
    """All names of the weight that a name stands for."""
    state = module.state_dict()
    place = state[name].data_ptr()
    return [other for other in state if other == name or (place and state[other].data_ptr() == place)]
