"""Recombination of models, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field

from fb_mixing.recombination.records import MODEL_RECOMBINATION
from fusionbench_core import ConfigError, Fused, FusionJob, ModelMethod, ModelPool, implements

_BLOCK = re.compile(r"(?:.*?\.)?\d+(?=\.)")


@implements(MODEL_RECOMBINATION)
class ModelRecombination(ModelMethod):
    r"""Take each layer from another model: shuffle the layers of T models among them.

    $$\theta^{(m)}_l = \theta_{\pi_l(m)}, \qquad \pi_l \sim \mathrm{Uniform}(S_T)\ \text{for each layer}\ l$$

    T models give T recombined ones, $m = 0, \dots, T - 1$; `member` says which of them is made, and with the
    same seed they fit together: every layer of every model is in exactly one of them.

    Notes:
        The paper trains the recombined models further, in rounds of federated learning; here it is one step.
        FusionBench gives all T models or the first, and shuffles with the global generator. What is shuffled
        as one is a module's tensors (weight and bias, the paper's layer), a whole block of a stack of
        layers, or each tensor by itself. Tensors out of scope are the base's, or the first model's.
        Memory: one model.

    Reference:
        Hu et al., Is Aggregation the Only Choice? Federated Learning via Layer-wise Model Recombination,
        KDD 2024, arXiv:2305.10730.
    """

    granularity: Literal["module", "block", "tensor"] = Field(
        default="module", description="what moves as one: a module's tensors, a block of layers, a tensor"
    )
    member: int = Field(default=0, ge=0, description="which of the recombined models to give, from 0")

    def check(self, models: Sequence[str]) -> None:
        """There are as many recombined models as models.

        Raises:
            ConfigError: if `member` is beyond them.
        """
        if self.member >= len(models):
            raise ConfigError(
                f"member={self.member} is asked for, and {len(models)} models give members 0 to "
                f"{len(models) - 1}",
                config="method.member",
                fix=f"set method.member to at most {len(models) - 1}",
            )

    def memory(self, pool: ModelPool) -> int:
        """The result; what it is made of is read tensor by tensor."""
        return pool.live_bytes(None if pool.base else pool.names[0])

    def fuse(self, job: FusionJob) -> Fused:
        pool, names = job.pool, sorted(job.pool)
        reference = pool.reference_model.checkpoint
        origins: dict[str, str] = {}
        state = {}
        for key in reference:
            if key in reference.aliases or not pool.merges(key):
                continue
            part = part_of(key, self.granularity)
            if part not in origins:
                order = torch.randperm(len(names), generator=job.generator("recombination", part))
                origins[part] = names[int(order[self.member])]
            # All are read, so that a broken model is found whether or not it was drawn here.
            tensors = {name: pool.checkpoint(name).tensor(key) for name in names}
            state[key] = tensors[origins[part]]
        return Fused.weights(state, details={"origins": origins})


def part_of(key: str, granularity: str) -> str:
    """Name of what the tensor `key` moves with.

    >>> part_of("encoder.layers.3.mlp.fc1.weight", "block")
    'encoder.layers.3'
    >>> part_of("encoder.layers.3.mlp.fc1.weight", "module")
    'encoder.layers.3.mlp.fc1'
    """
    if granularity == "tensor":
        return key
    block = _BLOCK.match(key) if granularity == "block" else None
    return block[0] if block else key.rpartition(".")[0]
