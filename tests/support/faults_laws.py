"""Methods that declare laws they do not keep, weigh models wrongly, or differ from their own formula."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from fusionbench_core import (
    BuilderRecord,
    Capabilities,
    Fused,
    Law,
    MethodRecord,
    ModelMethod,
    Predictor,
    TensorMethod,
    implements,
)

DOC = r"""Something close to the mean of all models.

    $$\theta = \frac{1}{T} \sum_t \theta_t$$
    """


def record(target: str, *laws: Law, **capabilities: Any) -> MethodRecord:
    return MethodRecord(
        name="faulty",
        target=f"faults_laws:{target}",
        summary="a mean",
        capabilities=Capabilities(laws=frozenset(laws), **capabilities),
    )


def mean(tensors):
    return torch.stack(list(tensors)).mean(0)


class MeanOf(Predictor):
    def combine(self, outputs):
        return outputs.mean(0)


class SumOf(Predictor):
    def combine(self, outputs):
        return outputs.sum(0)


BUILDERS = (BuilderRecord(name="several", target="faults_laws:rebuild", summary="several models"),)


def rebuild(context) -> Predictor:
    kind = {"MeanOf": MeanOf, "SumOf": SumOf}[context.arguments["kind"]]
    return kind({name: context.skeleton() for name in context.arguments["names"]})


def of(kind: type[Predictor], pool) -> Fused:
    arguments = {"kind": kind.__name__, "names": list(pool)}
    members = {name: pool.module(name) for name in pool}
    return Fused.of_module(kind(members), builder="several", arguments=arguments)


SOUND = record("Sound", *Law)


@implements(SOUND)
class Sound(TensorMethod):
    __doc__ = DOC

    weights: tuple[float, ...] | None = Field(default=None, description="one a model, in config order")
    normalize: bool = Field(default=True, description="divide the weights by their sum")

    @property
    def capabilities(self):
        laws = set(self.record.capabilities.laws) - ({Law.PERMUTATION} if self.weights else set())
        return Capabilities(laws=frozenset(laws), ordered=self.weights is not None)

    def merge(self, group):
        return sum(w * model for w, model in zip(self._weights(group), group.models))

    def reference(self, group):
        stacked = torch.stack(group.models)
        return torch.tensordot(torch.tensor(self._weights(group), dtype=stacked.dtype), stacked, 1)

    def _weights(self, group):
        values = self.weights or (1.0,) * len(group.models)
        return [value / (sum(values) if self.normalize else 1) for value in values]


SOUND_MODULE = record(
    "SoundModule", Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, locality="model", output="predictor"
)


@implements(SOUND_MODULE)
class SoundModule(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return of(MeanOf, job.pool)


UNDECLARED = record("Undeclared")


@implements(UNDECLARED)
class Undeclared(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return mean(group.models)


NOT_IDENTICAL = record("LosesATenth", Law.IDENTICAL)


@implements(NOT_IDENTICAL)
class LosesATenth(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return 0.9 * mean(group.models)


NOT_IDENTICAL_OUTPUTS = record("AddsOutputs", Law.IDENTICAL, locality="model", output="predictor")


@implements(NOT_IDENTICAL_OUTPUTS)
class AddsOutputs(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return of(SumOf, job.pool)


NOT_PERMUTATION = record("FirstCountsTwice", Law.PERMUTATION)


@implements(NOT_PERMUTATION)
class FirstCountsTwice(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return mean([group.models[0], *group.models])


ONE_IS_TOO_FEW = record("DividesByOneLess")


@implements(ONE_IS_TOO_FEW)
class DividesByOneLess(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        average = mean(group.models)
        spread = sum((model - average).square() for model in group.models) / (len(group.models) - 1)
        return average + 0 * spread


NOT_SINGLE = record("ShrinksOne", Law.SINGLE)


@implements(NOT_SINGLE)
class ShrinksOne(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return sum(group.models) / (len(group.models) + 1)


TWO_OR_ONE = record("NeedsTwo", Law.SINGLE, min_models=2)


@implements(TWO_OR_ONE)
class NeedsTwo(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return mean(group.models)


NOT_FIXED = record("DecaysBase", Law.BASE_FIXED_POINT, base="required")


@implements(NOT_FIXED)
class DecaysBase(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return 0.99 * group.base + mean(group.deltas)


NOT_TRANSLATED = record("AveragesMagnitudes", Law.TRANSLATION)


@implements(NOT_TRANSLATED)
class AveragesMagnitudes(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        average = mean(group.models)
        return average.sign() * mean(model.abs() for model in group.models)


NOT_SCALED = record("CutsSmall", Law.SCALE, base="required")


@implements(NOT_SCALED)
class CutsSmall(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return group.base + mean(delta * (delta.abs() > 1e-2) for delta in group.deltas)


NOT_DELTAS = record("LooksAtSpreadOfBase", Law.TRANSLATION, base="required", locality="tensor")


@implements(NOT_DELTAS)
class LooksAtSpreadOfBase(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        # Constants do not change the spread, so the law holds; on task vectors the base is 0.
        spread = (group.base - group.base.mean()).abs().mean() if group.base.numel() else 0
        return group.base + spread * mean(group.deltas)


class Weighted(TensorMethod):
    __doc__ = DOC

    weights: tuple[float, ...] | None = Field(default=None, description="one a model, in config order")

    def weights_of(self, group):
        return self.weights or (1.0,) * len(group.models)


COUNTS_ZERO = record("CountsWeightZero", ordered=True)


@implements(COUNTS_ZERO)
class CountsWeightZero(Weighted):
    __doc__ = DOC

    def merge(self, group):
        return mean(w * model for w, model in zip(self.weights_of(group), group.models))


UNEQUAL = record("FirstWeightIsHalved", ordered=True)


@implements(UNEQUAL)
class FirstWeightIsHalved(Weighted):
    __doc__ = DOC

    def merge(self, group):
        first, *others = self.weights_of(group)
        first = first if self.weights is None else first / 2
        return mean(w * model for w, model in zip([first, *others], group.models))


NOT_NORMALISED = record("ForgetsToNormalise", ordered=True)


@implements(NOT_NORMALISED)
class ForgetsToNormalise(Weighted):
    __doc__ = DOC

    normalize: bool = Field(default=True, description="divide the weights by their sum")

    def merge(self, group):
        values = self.weights or (1 / len(group.models),) * len(group.models)
        return sum(w * model for w, model in zip(values, group.models))


NOT_RESCALED = record("ForgetsToRescale", base="required", random=True)


@implements(NOT_RESCALED)
class ForgetsToRescale(TensorMethod):
    __doc__ = DOC

    density: float = Field(default=0.5, gt=0, le=1, description="fraction of the entries kept")

    def merge(self, group):
        return group.base + mean(self._kept(group))

    def reference(self, group):
        return group.base + mean(self._kept(group)) / self.density

    def _kept(self, group):
        masks = [group.uniform(name) < self.density for name in group.names]
        return [delta * mask for delta, mask in zip(group.deltas, masks)]
