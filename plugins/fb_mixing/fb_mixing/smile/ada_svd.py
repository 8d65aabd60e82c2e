"""AdaSVD merging: SMILE, back in the shape of one model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fb_mixing.modules import dotted
from fb_mixing.smile.linear import SmileLinear
from fb_mixing.smile.method import SmileUpscaling
from fb_mixing.smile.records import ADA_SVD
from fusionbench_core import (
    Batch,
    Fused,
    FusionJob,
    ModelMethod,
    ModelPool,
    frozen,
    implements,
    matrix,
    tasks_of,
)


@implements(ADA_SVD)
class AdaSvd(ModelMethod):
    r"""Merge linear layers with the weights that SMILE's routers give the models on average.

    With $V_{t}$ the $k_{gate}$ leading right singular vectors of $W_t - W_0$ `(out, in)`, and the mean taken
    over all tokens $x$ that go into the layer on data of all tasks:

    $$W = W_0 + \lambda \sum_t w_t\, (W_t - W_0), \qquad
      w = \mathrm{mean}_x\, \mathrm{softmax}_t \lVert V_t^\top x \rVert_2$$

    and the same for the bias. Tokens reach a layer through SMILE mixtures in which every expert takes part,
    as in `smile_upscaling` with `k=-1` and as many experts chosen as there are. Nothing is trained.

    Notes:
        FusionBench's algorithm, of which there is no paper of its own. Which layers, and all else, as in
        `smile_upscaling`. Layers that are not called on the data weigh all models alike, and tokens that an
        `attention_mask` of shape `(samples, tokens)` masks out do not count.

    Reference:
        Tang et al., SMILE: Zero-Shot Sparse Mixture of Low-Rank Experts Construction From
        Pre-Trained Foundation Models, arXiv:2408.10174.
    """

    gate_k: PositiveInt = Field(
        default=16, description="singular directions of an update that the gate looks at"
    )
    scaling_factor: float = Field(default=1.0, description="λ: multiplies the weighted sum of task vectors")
    average_experts: bool = Field(
        default=False,
        description="average the models in all that is no such layer, instead of taking the base's",
    )
    samples: PositiveInt = Field(default=256, description="samples of each task")
    batch_size: PositiveInt = Field(default=32, description="samples a batch")
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="split the samples come from; test only if the run is transductive"
    )

    @classmethod
    def example(cls, models: Sequence[str]) -> dict[str, Any]:
        """A narrow gate: the kit's models are narrow."""
        return {"gate_k": 2, "samples": 8}

    def memory(self, pool: ModelPool) -> int:
        """The mixtures whose gates are looked at, with whole updates; and what is merged of them."""
        return self._smile(len(pool)).memory(pool) + pool.live_bytes()

    def _smile(self, models: int) -> SmileUpscaling:
        return SmileUpscaling(gate_k=self.gate_k, k=-1, top_k=models, average_experts=self.average_experts)

    @torch.no_grad()
    def fuse(self, job: FusionJob) -> Fused:
        module = self._smile(len(job.pool)).fuse(job).module
        assert module is not None
        mixtures = {name: each for name, each in module.named_modules() if isinstance(each, SmileLinear)}
        weights = self._mean_weights(job, module, mixtures)
        state = {} if not self.average_experts else _outside(module, mixtures)
        for name, mixture in mixtures.items():
            scaled = self.scaling_factor * weights[name]
            state[dotted(name, "weight")] = _merged(mixture.weight, mixture.delta, scaled)
            if mixture.bias is not None:
                state[dotted(name, "bias")] = _merged(mixture.bias, mixture.delta_bias, scaled)
        details = {}
        if weights:
            details["weights"] = matrix(
                torch.stack(list(weights.values())),
                rows=list(weights),
                columns=list(job.pool),
                title="Mean routing weights",
            )
        return Fused.weights({name: each.cpu() for name, each in state.items()}, details=details)

    def _mean_weights(
        self, job: FusionJob, module: nn.Module, mixtures: dict[str, SmileLinear]
    ) -> dict[str, Tensor]:
        """Name of a layer -> mean weight of each model `(models,)`, fp64."""
        tasks = tasks_of(job, self.record.name)
        means = {name: _Mean(mixture) for name, mixture in mixtures.items()}
        if not means:
            return {}
        with _observing(means.values()):
            for done, task in enumerate(tasks):
                model = task.attach(module).to(job.fabric.device)
                with frozen([model]):
                    for batch in task.batches(
                        self.split, limit=self.samples, seed=job.seed, batch_size=self.batch_size
                    ):
                        _call(model, batch.to(job.fabric.device), means.values())
                job.progress(done + 1, len(tasks), task.name)
        return {name: mean.value() for name, mean in means.items()}


class _Mean:
    """Running mean of the routing weights of the tokens that a mixture sees."""

    def __init__(self, mixture: SmileLinear) -> None:
        self.mixture = mixture
        self.mask: Tensor | None = None
        self._total = torch.zeros(mixture.experts, dtype=torch.float64)
        self._tokens = 0

    def observe(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Add the tokens that are about to go into the mixture."""
        x: Tensor = arguments[0]
        fits = self.mask is not None and x.dim() > 2 and x.shape[:2] == self.mask.shape
        tokens = (x[self.mask] if fits else x).reshape(-1, x.shape[-1])
        self._total += self.mixture.logits(tokens).softmax(-1).double().sum(0).cpu()
        self._tokens += len(tokens)

    def value(self) -> Tensor:
        """The mean so far `(experts,)`; all alike if no token was seen."""
        if not self._tokens:
            return torch.full_like(self._total, 1 / len(self._total))
        return self._total / self._tokens


@contextmanager
def _observing(means: Collection[_Mean]) -> Iterator[None]:
    handles = [mean.mixture.register_forward_pre_hook(mean.observe) for mean in means]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _call(model: nn.Module, batch: Batch, means: Collection[_Mean]) -> None:
    mask = batch.inputs.get("attention_mask")
    for mean in means:
        mean.mask = None if mask is None else mask.bool()
    model(**batch.inputs)


def _merged(base: Tensor, deltas: Tensor, weights: Tensor) -> Tensor:
    """Base `(*shape)` plus the weighted sum of `deltas` `(models, *shape)`, fp32 at least."""
    wide = torch.promote_types(base.dtype, torch.float32)
    return base.to(wide) + torch.tensordot(weights.to(deltas.device, wide), deltas.to(wide), 1)


def _outside(module: nn.Module, mixtures: dict[str, SmileLinear]) -> dict[str, Tensor]:
    """All tensors of a module but those of the mixtures."""
    inside = tuple(dotted(name, "") for name in mixtures)
    return {name: each for name, each in module.state_dict().items() if not name.startswith(inside)}
