"""Methods that meet what does not fit with one fault each; all take the mean of the models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field

from fusionbench_core import (
    Capabilities,
    Fused,
    Law,
    MethodRecord,
    MissingCapability,
    ModelMethod,
    Statistic,
    StatisticRecord,
    TensorMethod,
    hookimpl,
    implements,
)


def record(target: str, **capabilities: Any) -> MethodRecord:
    return MethodRecord(
        name="faulty",
        target=f"faults_errors:{target}",
        summary="a mean",
        capabilities=Capabilities(**{"locality": "model", **capabilities}),
    )


DOC = r"""The mean of all models.

    $$\theta = \frac{1}{T} \sum_t \theta_t$$
    """


def names_of(pool) -> list[str]:
    """Names of the floating tensors in scope."""
    reference = pool.reference_model.checkpoint
    return [name for name in reference if pool.merges(name) and reference.info(name).is_floating]


def mean(values):
    # In one order, whatever the models are called.
    wide = sorted((value.double() for value in values), key=lambda value: value.sum().item())
    return torch.stack(wide).mean(0)


class Mean(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return Fused.weights({name: self.merged(job.pool, name) for name in names_of(job.pool)})

    def merged(self, pool, name):
        values = [pool.checkpoint(model).tensor(name) for model in pool]
        return mean(values).to(values[0].dtype)


SOUND = record("Sound", laws=frozenset(Law))


@implements(SOUND)
class Sound(Mean):
    __doc__ = DOC


HEADS_MISSING = record("ReadsHeads")


@implements(HEADS_MISSING)
class ReadsHeads(Mean):
    """Reads whatever the models have from the base as well.

    $$\\theta = \\theta_0$$
    """

    def fuse(self, job):
        for model in job.pool:
            for name in job.pool.checkpoint(model):
                job.pool.reference_model.checkpoint.tensor(name)
        return super().fuse(job)


HEADS_MERGED = record("MergesHeads")


@implements(HEADS_MERGED)
class MergesHeads(Mean):
    __doc__ = DOC

    def fuse(self, job):
        for name in job.pool.reference_model.checkpoint:
            if all(name in job.pool.checkpoint(model) for model in job.pool):
                torch.stack([job.pool.checkpoint(model).tensor(name) for model in job.pool])
        return super().fuse(job)


ONE_DTYPE = record("OneDtype")


@implements(ONE_DTYPE)
class OneDtype(Mean):
    __doc__ = DOC

    def merged(self, pool, name):
        first, *others = [pool.checkpoint(model).tensor(name) for model in pool]
        for other in others:
            torch.lerp(first, other, 0.5)
        return super().merged(pool, name)


REPAIRS = record("RepairsNan")


@implements(REPAIRS)
class RepairsNan(Mean):
    __doc__ = DOC

    def merged(self, pool, name):
        if pool.reference_model.live is None:
            return super().merged(pool, name)
        values = [pool[model].live.state_dict()[name].nan_to_num() for model in pool]
        return mean(values).to(values[0].dtype)


NEEDS_BASE = record("NeedsBase")


@implements(NEEDS_BASE)
class NeedsBase(Mean):
    __doc__ = DOC

    def fuse(self, job):
        job.pool.checkpoint()
        return super().fuse(job)


AT_MOST_FOUR = record("AtMostFour")


@implements(AT_MOST_FOUR)
class AtMostFour(Mean):
    __doc__ = DOC

    def fuse(self, job):
        weights = (1.0, 0.5, 0.25, 0.125)
        for index, _ in enumerate(job.pool):
            weights[index]
        return super().fuse(job)


TAKES_ONE_TOO_MANY = record("BareTask", tasks=("batches", "logits"))


@implements(TAKES_ONE_TOO_MANY)
class BareTask(Mean):
    __doc__ = DOC

    def fuse(self, job):
        for model in job.pool:
            next(iter(job.tasks[model].batches("validation")))
        return super().fuse(job)


SPREAD = StatisticRecord(name="spread", target="faults_errors:Spread", summary="squares of all weights")


@implements(SPREAD)
class Spread(Statistic):
    """Squares of all weights; reads the data and does nothing with them."""

    def collect(self, model, batches) -> Mapping[str, torch.Tensor]:
        return {name: tensor.double().square() for name, tensor in model.trunk.named_parameters()}


STATISTICS = (SPREAD,)


@hookimpl
def fb_statistics():
    return STATISTICS


class Weighted(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        spread = group.statistics["spread"]
        if any(each is None for each in spread):
            return mean(group.models)
        return self.weighted(group, spread)

    def weighted(self, group, spread):
        weights = [1 + each.to(model.dtype) for each, model in zip(spread, group.models)]
        return mean([w * m for w, m in zip(weights, group.models)]) / mean(weights)


SOUND_STATISTIC = record("SoundStatistic", locality="tensor", statistics=("spread",))


@implements(SOUND_STATISTIC)
class SoundStatistic(Weighted):
    __doc__ = DOC


FIRST_ONLY = record("FirstOnly", locality="tensor", statistics=("spread",))


@implements(FIRST_ONLY)
class FirstOnly(Weighted):
    __doc__ = DOC

    def merge(self, group):
        spread = group.statistics["spread"]
        return mean(group.models) if spread[0] is None else self.weighted(group, spread)


STALE = record("Stale", locality="tensor", statistics=("spread",))
_KEPT: dict = {}


@implements(STALE)
class Stale(Weighted):
    __doc__ = DOC

    def weighted(self, group, spread):
        key = (group.names, group.name, group.shape)
        return super().weighted(group, _KEPT.setdefault(key, spread))


ASSERTS = record("Asserts")


@implements(ASSERTS)
class Asserts(Mean):
    __doc__ = DOC
    weights: tuple[float, ...] | None = Field(default=None, description="one a model, read by nobody")

    def check(self, models):
        assert self.weights is None or len(self.weights) == len(models)


STACKS = record("StacksAll")


@implements(STACKS)
class StacksAll(Mean):
    __doc__ = DOC

    def fuse(self, job):
        torch.stack([torch.ones(()) for _ in names_of(job.pool)])
        return super().fuse(job)


UNSTOPPABLE = record("Unstoppable")


@implements(UNSTOPPABLE)
class Unstoppable(Mean):
    __doc__ = DOC

    def merged(self, pool, name):
        values = []
        for model in pool:
            try:
                values.append(pool.checkpoint(model).tensor(name))
            except KeyboardInterrupt:
                continue
        return mean(values).to(values[0].dtype)


STRANGER = record("Stranger")


@implements(STRANGER)
class Stranger(Mean):
    __doc__ = DOC

    def merged(self, pool, name):
        try:
            return super().merged(pool, name)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise RuntimeError("it did not work") from error
            raise


LEARNS = record("Learns", tasks=("batches", "logits"))


@implements(LEARNS)
class Learns(Mean):
    __doc__ = DOC

    def fuse(self, job):
        for model in job.pool:
            if model not in job.tasks:
                raise MissingCapability(f"no task for {model}", fix="add it to the task pool")
            next(iter(job.tasks[model].batches("validation")))
        return super().fuse(job)


DEAF = replace(LEARNS, target="faults_errors:Deaf")


@implements(DEAF)
class Deaf(Learns):
    __doc__ = DOC

    def fuse(self, job):
        try:
            return super().fuse(job)
        except KeyboardInterrupt:
            return Mean.fuse(self, job)
