"""RegMean++."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from fb_merging.data_driven.gram import outer
from fb_merging.data_driven.inputs import input_means, linear_weights
from fb_merging.data_driven.records import REGMEAN_PLUSPLUS
from fb_merging.data_driven.regmean import solve_regression
from fb_merging.operations.combine import mean
from fb_merging.operations.layers import layer_path
from fusionbench_core import (
    AdaptationTask,
    Batch,
    Fused,
    FusionJob,
    ModelMethod,
    ModelPool,
    frozen,
    implements,
    tasks_of,
)


@implements(REGMEAN_PLUSPLUS)
class RegMeanPlusPlus(ModelMethod):
    r"""RegMean layer by layer, where what goes into a layer comes from the merged layers before it.

    For a linear weight $W_t$, shape `(out, in)`, and inputs $X_t$ of this layer in model t, all earlier
    layers of which are merged already:

    $$W^\top = \Big(\sum_t \hat G_t\Big)^{-1} \sum_t \hat G_t W_t^\top, \qquad
      \hat G_t = \alpha\, G_t + (1 - \alpha)\,\mathrm{diag}(G_t), \quad G_t = \tfrac1n X_t^\top X_t$$

    All other tensors are averaged.

    Notes:
        Layers are told by the tensors' names, and taken in the order in which the base calls them; a linear
        layer outside of all numbered layers is one by itself. Within a layer inputs are those of the model
        itself, as in the authors' code; tensors outside of the numbered layers are merged from the start.
        Each layer takes a forward pass of every model, up to that layer: about L/2 passes for L layers.
        Linear layers that are never called as modules, and tied weights, are averaged.

    Reference:
        Nguyen et al., RegMean++: Enhancing Effectiveness and Generalization of Regression Mean for Model
        Merging, 2025, arXiv:2508.03121.
    """

    reduce_non_diagonal_ratio: float = Field(
        default=0.95, ge=0, le=1, description="α: multiplies the off-diagonal entries of the Gram matrices"
    )
    samples: int = Field(default=256, gt=0, description="samples a task that Gram matrices are collected on")
    batch_size: int = Field(default=32, gt=0, description="samples a batch")
    split: Literal["train", "validation", "test"] = Field(
        default="train", description="split the samples come from; test only if the run is transductive"
    )

    @torch.no_grad()
    def fuse(self, job: FusionJob) -> Fused:
        pool, tasks = job.pool, tasks_of(job, "regmean_plusplus")
        trunk = pool.module(None if pool.base else pool.names[0]).to(job.fabric.device)
        models = [task.attach(trunk).to(job.fabric.device) for task in tasks]
        data = [self._batches(job, task) for task in tasks]
        names = _merged_names(pool, trunk)
        merged = {name: mean(_read(pool, name)) for name in names}
        trunk.load_state_dict(merged, strict=False)
        with frozen(models):
            layers = _layers(trunk, names, lambda: models[0](**data[0][0].inputs))
            for done, layer in enumerate(layers, 1):
                for weight, grams in self._grams(pool, layer, names, models, data).items():
                    merged[weight] = solve_regression(
                        _read(pool, weight), grams, self.reduce_non_diagonal_ratio
                    )
                trunk.load_state_dict(merged, strict=False)
                job.progress(done, len(layers), layer.name)
        return Fused.weights(merged)

    def _grams(
        self,
        pool: ModelPool,
        layer: LinearLayer,
        names: Sequence[str],
        models: Sequence[nn.Module],
        data: Sequence[list[Batch]],
    ) -> dict[str, list[Tensor]]:
        """Name of a weight that all models call -> the Gram matrix of its inputs in each model."""
        found = []
        state = models[0].get_submodule("trunk").state_dict()
        for name, model, batches in zip(pool, models, data):
            own = {
                f"trunk.{each}": pool.checkpoint(name).tensor(each).to(state[each])
                for each in names
                if each in layer
            }
            run = partial(_run_until, model, layer.name, own)
            found.append(input_means(model.get_submodule("trunk"), layer.weights, batches, run, outer) or {})
        complete = [weight for weight in layer.weights if all(weight in each for each in found)]
        return {weight: [each[weight] for each in found] for weight in complete}

    def _batches(self, job: FusionJob, task: AdaptationTask) -> list[Batch]:
        seed = int(torch.randint(2**31, (), generator=job.generator("regmean_plusplus", task.name)))
        batches = task.batches(self.split, limit=self.samples, seed=seed, batch_size=self.batch_size)
        return [batch.to(job.fabric.device) for batch in batches]


@dataclass(frozen=True)
class LinearLayer:
    """The linear weights of one numbered layer, or of one module outside of them.

    Attributes:
        name: Path of the layer in the trunk.
        weights: Names of the weights.
    """

    name: str
    weights: tuple[str, ...]

    def __contains__(self, tensor: str) -> bool:
        return tensor == self.name or tensor.startswith(f"{self.name}.")


class _ReachedError(Exception):
    """The layer of interest is done."""


def _run_until(model: nn.Module, layer: str, own: Mapping[str, Tensor], batch: Batch) -> None:
    """Call a model with other tensors, up to the end of a layer."""

    def stop(module: nn.Module, inputs: Any, output: Any) -> None:
        raise _ReachedError

    module = model.get_submodule(f"trunk.{layer}" if layer else "trunk")
    handle = module.register_forward_hook(stop)
    try:
        functional_call(model, dict(own), kwargs=dict(batch.inputs))
    except _ReachedError:
        pass
    finally:
        handle.remove()


def _layers(trunk: nn.Module, names: Sequence[str], run: Callable[[], Any]) -> list[LinearLayer]:
    """Layers with linear weights, in the order in which they are called first."""
    called: dict[str, None] = {}
    handles = []
    try:
        for weight in linear_weights(trunk):
            if weight in names and not _is_tied(trunk, weight):
                module = trunk.get_submodule(weight.removesuffix("weight").rstrip("."))
                handles.append(module.register_forward_pre_hook(partial(_note, called, weight)))
        run()
    finally:
        for handle in handles:
            handle.remove()
    layers: dict[str, list[str]] = {}
    for weight in called:
        path = layer_path(weight) or weight.removesuffix("weight").rstrip(".")
        layers.setdefault(path, []).append(weight)
    return [LinearLayer(path, tuple(weights)) for path, weights in layers.items()]


def _note(called: dict[str, None], weight: str, module: nn.Module, inputs: Any) -> None:
    called.setdefault(weight)


def _is_tied(trunk: nn.Module, name: str) -> bool:
    parameter = trunk.get_parameter(name)
    return sum(each is parameter for _, each in trunk.named_parameters(remove_duplicate=False)) > 1


def _merged_names(pool: ModelPool, trunk: nn.Module) -> list[str]:
    """Floating-point tensors in scope that all models have."""
    checkpoints = [pool.checkpoint(name) for name in pool]
    return [
        name
        for name, tensor in trunk.state_dict().items()
        if tensor.is_floating_point() and pool.merges(name) and all(name in each for each in checkpoints)
    ]


def _read(pool: ModelPool, name: str) -> list[Tensor]:
    raw = [pool.checkpoint(model).tensor(name) for model in pool]
    dtype = torch.float64 if any(each.dtype == torch.float64 for each in raw) else torch.float32
    return [each.to(dtype) for each in raw]
