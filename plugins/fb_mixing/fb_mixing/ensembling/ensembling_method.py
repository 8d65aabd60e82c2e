"""What methods have in common whose routers add up task vectors."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from fb_mixing.ensembling.builder import upscale
from fb_mixing.ensembling.layers import EnsembledLinear, WeightEnsembling
from fb_mixing.ensembling.learned_router import (
    LearnedRouterMethod,
    entropy,
    learn,
    normal_rows,
    router_parameters,
)
from fb_mixing.ensembling.router import Router, router_entries
from fb_mixing.modules import FEED_FORWARD, count, dotted, input_widths, matching, tensors_inside
from fb_mixing.pooled import merge_into, task_tensor
from fusionbench_core import (
    Fused,
    FusionJob,
    ModelPool,
    TaskModels,
    TensorInfo,
    UnsupportedArchitecture,
    curve,
    frozen,
)

_LEARNING = 5
"""What learning takes, in copies of the routers: their values in fp32, two gradients, two moments of Adam."""


class EnsemblingMethod(LearnedRouterMethod):
    """Learns routers that add up task vectors in some modules; everything else is task arithmetic.

    A method says what the updates of a layer are and what routers look at; all else is done here.
    """

    scaling_factor: float = Field(
        default=0.3, description="multiplies the sum of the task vectors of all that is no mixture"
    )
    modules: tuple[str, ...] = Field(
        default=FEED_FORWARD, min_length=1, description="shell patterns of the modules that become mixtures"
    )

    @classmethod
    def example(cls, models: Sequence[str]) -> dict[str, Any]:
        """A few steps, on the modules of the kit's models."""
        modules = ("layers.*", "*.mlp", "block")
        return {"steps": 2, "learning_rate": 0.01, "batch_size": 8, "modules": modules}

    @abstractmethod
    def layer_shape(self, models: int) -> dict[str, Any]:
        """`count` and `rank_one` of the layers."""

    @abstractmethod
    def add_updates(
        self, layer: EnsembledLinear, updates: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> None:
        """Fill a layer with updates made of the models' task vectors, `(out, in)` and `(out,)`."""

    def kept_entries(self, weight: Tensor) -> int | None:
        """How many entries are held of each update of this weight; None for all."""
        return None

    def router_shapes(self, widths: Mapping[str, int], models: int) -> dict[str, dict[str, Any]]:
        """Name of a module -> arguments of its router; by default one each, as wide as the module's input."""
        coefficients = self.layer_shape(models)["count"]
        return {
            name: {
                "in_features": width,
                "coefficients": coefficients,
                "layers": self.router_layers,
                "hidden": width,
            }
            for name, width in widths.items()
        }

    def update_bytes(self, shape: tuple[int, ...], models: int) -> int:
        """Bytes of the updates of a weight `(out, in)` or a bias `(out,)`; by default a whole one a model."""
        return 4 * math.prod(shape) * models

    def memory(self, pool: ModelPool) -> int:
        """The base, the updates and routers, and the most of what is there in turn.

        First the layers that are replaced and the updates of one of them; then, while routers learn, the
        weights of a batch with the gradients of one layer's, and the routers' gradients and moments.
        """
        inside = tensors_inside(pool, self.modules)
        matrices = [each.shape for each in inside.values() if len(each.shape) < 3]
        updates = sum(self.update_bytes(shape, len(pool)) for shape in matrices)
        entries = sum(each.numel for each in inside.values())
        largest = max((each.numel for each in inside.values()), default=0)
        routers = self._router_bytes(pool, inside)
        filling = 4 * (entries + (len(pool) + 2) * largest)
        samples = (self.sample_bytes(entries) + 3 * self.sample_bytes(largest)) * self.batch_size
        learning = samples + _LEARNING * routers
        return pool.live_bytes() + updates + routers + max(filling, learning if self.steps else 0)

    def _router_bytes(self, pool: ModelPool, inside: Mapping[str, TensorInfo]) -> int:
        try:
            shapes = self.router_shapes(input_widths(inside, self.modules), len(pool))
        except UnsupportedArchitecture:
            return 0  # Headers do not tell all; if it is so, fusing says it.
        return 4 * sum(router_entries(**shape) for shape in shapes.values())

    def sample_bytes(self, entries: int) -> int:
        """Bytes of the weights of one sample, of as many entries in all its mixtures."""
        return 4 * entries

    def train(self, job: FusionJob, module: nn.Module, models: TaskModels) -> list[float]:
        """Learn the routers; gives the loss at each step. By default the entropy of the predictions."""
        return learn(job, self, module, models, lambda variables, _: models.descend(variables, entropy))

    def fuse(self, job: FusionJob) -> Fused:
        module, arguments = self._upscaled(job)
        models = TaskModels(
            job,
            self.record.name,
            module,
            split=self.split,
            batch_size=self.batch_size,
            labelled="labels" in self.capabilities.tasks,
        )
        with frozen(models.models):
            losses = self.train(job, module, models)
        trained = sum(router.numel() for _, router in router_parameters(module))
        details: dict[str, Any] = {
            "parameters": count(module),
            "trained_parameters": trained,
            "mixtures": list(arguments["modules"]),
        }
        if losses:
            details["losses"] = curve({"loss": losses}, title="Adaptation", y_label="mean loss (nats)")
        return Fused.of_module(
            module.cpu().requires_grad_(False).eval(),
            builder="mixing/weight_ensembling",
            arguments=arguments,
            details=details,
        )

    @torch.no_grad()
    def _upscaled(self, job: FusionJob) -> tuple[nn.Module, dict[str, Any]]:
        base = job.pool.module()
        found = matching(base, self.modules)
        places = {name: linear_layers(module, name, job.pool) for name, module in found.items()}
        places = {name: layers for name, layers in places.items() if layers}
        if not places:
            raise UnsupportedArchitecture(
                f"{', '.join(found)} of {type(base).__name__} hold no linear layer in scope",
                fix="name modules with linear layers in method.modules, or widen modelpool.scope",
            )
        merge_into(base, job.pool, self.scaling_factor, leave=_linear_names(places))
        widths = {name: _weight(next(iter(layers.values()))).shape[1] for name, layers in places.items()}
        arguments = {
            "modules": {
                name: {inner: self._arguments(layer, len(job.pool)) for inner, layer in layers.items()}
                for name, layers in places.items()
            },
            "routers": self.router_shapes(widths, len(job.pool)),
            "tasks": self._tasks(len(job.pool)),
        }
        module = upscale(base, arguments)
        for done, (name, layers) in enumerate(places.items()):
            job.progress(done, len(places), name)
            wrapped = module.get_submodule(name)
            assert isinstance(wrapped, WeightEnsembling)
            self._initialise(job, wrapped.router, "" if "" in arguments["routers"] else name)
            for inner, layer in layers.items():
                new = wrapped.module.get_submodule(inner)
                assert isinstance(new, EnsembledLinear)
                self._fill(new, layer, dotted(name, inner) if inner else name, job.pool)
        return module.to(job.fabric.device), arguments

    def _arguments(self, layer: nn.Module, models: int) -> dict[str, Any]:
        kept = self.kept_entries(layer.get_parameter("weight"))
        sparse = {} if kept is None else {"kept": kept}
        return {**_shape(layer), **self.layer_shape(models), **sparse}

    def _tasks(self, models: int) -> int | None:
        return None

    def _initialise(self, job: FusionJob, router: Router, name: str) -> None:
        """Small normal weights, so that all samples begin with about the same coefficients."""
        router.bias.fill_(self.init_coefficient)
        inputs = list(job.pool) if self._tasks(len(job.pool)) else None
        if router.weight is not None:
            own = None if router.hidden_weight is not None else inputs
            rows, columns = router.weight.shape[0] // len(job.pool), router.weight.shape[1]
            parts = [normal_rows(job, (name, model), rows, columns, own) for model in job.pool]
            router.weight.copy_(torch.cat(parts))
        if router.hidden_weight is not None:
            rows, columns = router.hidden_weight.shape
            router.hidden_weight.copy_(normal_rows(job, (name, "hidden"), rows, columns, inputs))

    def _fill(self, new: EnsembledLinear, layer: nn.Module, name: str, pool: ModelPool) -> None:
        new.weight.copy_(_weight(layer))
        weight = layer.get_parameter("weight")
        turned = [task_tensor(pool, model, dotted(name, "weight"), weight) for model in pool]
        updates = [each.T for each in turned] if _is_conv1d(layer) else turned
        biases: list[Tensor] = []
        if new.bias is not None:
            bias = layer.get_parameter("bias")
            new.bias.copy_(bias)
            biases = [task_tensor(pool, model, dotted(name, "bias"), bias) for model in pool]
        self.add_updates(new, updates, biases)


def linear_layers(module: nn.Module, name: str, pool: ModelPool) -> dict[str, nn.Module]:
    """Dotted names in a module of its linear layers in the pool's scope; "" for the module itself."""
    return {
        inner: layer
        for inner, layer in module.named_modules()
        if (type(layer) is nn.Linear or _is_conv1d(layer))
        and pool.merges(dotted(dotted(name, inner) if inner else name, "weight"))
    }


def _linear_names(places: Mapping[str, Mapping[str, nn.Module]]) -> list[str]:
    return [dotted(name, inner) if inner else name for name, layers in places.items() for inner in layers]


def _is_conv1d(layer: nn.Module) -> bool:
    # GPT-2's linear layer, whose weight is transposed.
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.get_parameter("weight")
    return weight.T if _is_conv1d(layer) else weight


def _shape(layer: nn.Module) -> dict[str, Any]:
    rows, columns = _weight(layer).shape
    return {"in_features": columns, "out_features": rows, "bias": getattr(layer, "bias", None) is not None}
