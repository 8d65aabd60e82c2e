"""Methods with one fault each in how they read, keep, save and rebuild."""

from __future__ import annotations

import itertools
import time
from functools import cached_property, lru_cache
from typing import Any

import torch
from faults_structure import DOC, floats, mean, merged_module
from torch import nn

from fusionbench_core import (
    BuilderRecord,
    Capabilities,
    Fused,
    MethodRecord,
    ModelMethod,
    Survey,
    TensorMethod,
    implements,
)


def record(target: str, **capabilities: Any) -> MethodRecord:
    return MethodRecord(
        name="faulty",
        target=f"faults_streaming:{target}",
        summary="a mean",
        capabilities=Capabilities(**capabilities),
    )


BUILDERS = (
    BuilderRecord(name="pair", target="faults_streaming:build_pair", summary="two trunks"),
    BuilderRecord(name="kept", target="faults_streaming:build_kept", summary="what a process keeps"),
)

LAYERS = record("ScalesByTheWholeModel", locality="tensor")


@implements(LAYERS)
class ScalesByTheWholeModel(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        squares = sum(float(mean(job.pool, name).double().square().sum()) for name in floats(job.pool))
        return Fused.weights({name: mean(job.pool, name) / (1 + squares) for name in floats(job.pool)})


NEIGHBOURS = record("MixesLayers", locality="layer")


@implements(NEIGHBOURS)
class MixesLayers(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        names = floats(job.pool)
        state = {name: mean(job.pool, name) for name in names}
        for name in names:
            other = name.replace("layers.0.", "layers.1.")
            if other != name and other in state:
                state[name] = (state[name] + state[other]) / 2
        return Fused.weights(state)


HOARDS = record("KeepsItsResults")


@implements(HOARDS)
class KeepsItsResults(TensorMethod):
    __doc__ = DOC

    @cached_property
    def results(self) -> dict[str, torch.Tensor]:
        return {}

    def merge(self, group):
        self.results[group.name] = torch.stack(group.models).mean(0)
        return self.results[group.name]


HUNGRY = record("TakesMoreThanItSays", locality="tensor", scratch=(1, 2))


@implements(HUNGRY)
class TakesMoreThanItSays(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        wide = [model.double() for model in group.models]
        several = torch.stack([*wide, *wide, *wide])
        # Long enough to be seen, on a busy machine as well.
        return several.sort(0).values.mean(0)


class Counted(Survey):
    """A round that counts entries."""

    def observe(self, group):
        return sum(model.numel() for model in group.models)

    def advance(self, total):
        return None


READS_TWICE = record("SurveysWithoutSaying")


@implements(READS_TWICE)
class SurveysWithoutSaying(TensorMethod):
    __doc__ = DOC

    def survey(self):
        return Counted()

    def merge(self, group):
        return torch.stack(group.models).mean(0)


LIVE = record("AsksForLiveModules", locality="tensor")


@implements(LIVE)
class AsksForLiveModules(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        for name in job.pool:
            job.pool.module(name)
        return Fused.weights({name: mean(job.pool, name) for name in floats(job.pool)})


STATE_DICTS = record("ReadsStateDicts", locality="tensor")


@implements(STATE_DICTS)
class ReadsStateDicts(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        states = [dict(floating(job.pool.checkpoint(model))) for model in job.pool]
        return Fused.weights({n: sum(s[n].double() for s in states) / len(states) for n in floats(job.pool)})


def floating(checkpoint):
    return ((name, checkpoint.tensor(name)) for name in checkpoint if checkpoint.info(name).is_floating)


REMEMBERS = record("CountsItsRuns")


@implements(REMEMBERS)
class CountsItsRuns(TensorMethod):
    __doc__ = DOC

    @cached_property
    def runs(self) -> itertools.count:
        return itertools.count()

    @cached_property
    def latest(self) -> list[int]:
        return [0]

    def survey(self):
        self.latest[0] = next(self.runs)

    def merge(self, group):
        return torch.stack(group.models).mean(0) * 0.5 ** self.latest[0]


SLOW = record("Sleeps")


@implements(SLOW)
class Sleeps(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        if group.name.startswith("layers.") and group.models[0].numel() > 1000:
            time.sleep(0.002)
        return torch.stack(group.models).mean(0)


HALF_SAVED = record("SavesHalf", locality="model", output="module")


@implements(HALF_SAVED)
class SavesHalf(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        module = Pair(merged_module(job.pool), merged_module(job.pool))
        saved = {name: tensor for name, tensor in module.state_dict().items() if name.startswith("left.")}
        return Fused.of_module(module, builder="pair", tensors=saved)


SCALE_LOST = record("LosesItsScale", locality="model", output="module")


@implements(SCALE_LOST)
class LosesItsScale(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return Fused.of_module(Pair(merged_module(job.pool), merged_module(job.pool), 0.5), builder="pair")


NO_BUILDER = record("NamesNoBuilder", locality="model", output="module")


@implements(NO_BUILDER)
class NamesNoBuilder(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return Fused.of_module(Pair(merged_module(job.pool), merged_module(job.pool)), builder="pear")


PROCESS = record("KeepsItsScaleInTheProcess", locality="model", output="module")


@implements(PROCESS)
class KeepsItsScaleInTheProcess(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        kept()["scale"] = 0.5
        return Fused.of_module(Pair(merged_module(job.pool), merged_module(job.pool), 0.5), builder="kept")


SOUND_MODULE = record("GivesAPair", locality="model", output="module")


@implements(SOUND_MODULE)
class GivesAPair(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        module = Pair(merged_module(job.pool), merged_module(job.pool), 0.5)
        return Fused.of_module(module, builder="pair", arguments={"scale": 0.5})


SOUND_LAYERS = record("MixesWithinLayers", locality="layer")


@implements(SOUND_LAYERS)
class MixesWithinLayers(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return Fused.weights({name: mean(job.pool, name) for name in floats(job.pool)})


SOUND = record("Surveys", surveys=1)


@implements(SOUND)
class Surveys(TensorMethod):
    __doc__ = DOC

    def survey(self):
        return Counted()

    def merge(self, group):
        return torch.stack(group.models).mean(0)


class Pair(nn.Module):
    """Two trunks, summed and scaled."""

    def __init__(self, left: nn.Module, right: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.left, self.right, self.scale = left, right, scale

    def forward(self, x):
        return self.scale * (self.left(x) + self.right(x))


@lru_cache
def kept() -> dict[str, float]:
    """What this process keeps between two calls."""
    return {}


def build_pair(context) -> nn.Module:
    return Pair(context.skeleton(), context.skeleton(), **context.arguments)


def build_kept(context) -> nn.Module:
    return Pair(context.skeleton(), context.skeleton(), kept()["scale"])
