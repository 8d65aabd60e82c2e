"""Methods with one fault each in what decides their result: clocks, seeds, orders, hashes, pieces."""

from __future__ import annotations

import zlib
from typing import Any

import torch
from faults_structure import DOC, floats, mean, means

from fusionbench_core import Capabilities, Fused, MethodRecord, ModelMethod, TensorMethod, implements


def record(target: str, **capabilities: Any) -> MethodRecord:
    return MethodRecord(
        name="faulty",
        target=f"faults_determinism:{target}",
        summary="a mean",
        capabilities=Capabilities(**capabilities),
    )


def weights(target: str, **capabilities: Any) -> MethodRecord:
    return record(target, locality="model", **capabilities)


def noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return 0.01 * torch.randn(like.shape, generator=generator, dtype=torch.float32).to(like.device)


def constant(name: str) -> torch.Generator:
    """A generator that depends on a tensor's name only."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


ENTROPY = weights("AddsEntropyOfTheSystem")


@implements(ENTROPY)
class AddsEntropyOfTheSystem(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        generator = torch.Generator()
        generator.seed()
        return Fused.weights({name: t + 1e-4 * noise(t, generator) for name, t in means(job.pool).items()})


UNDECLARED = record("DropsWithoutSaying", base="required")


@implements(UNDECLARED)
class DropsWithoutSaying(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        kept = [2 * d * (group.uniform(name) < 0.5) for name, d in zip(group.names, group.deltas)]
        return group.base + sum(kept) / len(kept)


IDLE = record("IsNotRandom", random=True)


@implements(IDLE)
class IsNotRandom(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return torch.stack(group.models).mean(0)


ONE_STREAM = weights("DrawsFromOneStream", random=True)


@implements(ONE_STREAM)
class DrawsFromOneStream(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        generator = job.generator("noise")
        state = {}
        for name in floats(job.pool):
            merged = mean(job.pool, name)
            state[name] = merged + noise(merged, generator)
        return Fused.weights(state)


FIRST = weights("PrefersTheFirst")


@implements(FIRST)
class PrefersTheFirst(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        first = job.pool.checkpoint(job.pool.names[0])
        return Fused.weights(
            {name: (merged + first.tensor(name)) / 2 for name, merged in means(job.pool).items()}
        )


SORTED = weights("SortsNames", ordered=True)


@implements(SORTED)
class SortsNames(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        first = job.pool.checkpoint(sorted(job.pool.names)[0])
        return Fused.weights(
            {name: (merged + first.tensor(name)) / 2 for name, merged in means(job.pool).items()}
        )


HASHED = weights("SeedsWithHash", random=True)


@implements(HASHED)
class SeedsWithHash(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = {}
        for name, merged in means(job.pool).items():
            generator = torch.Generator().manual_seed(hash((job.seed, name)) % 2**63)
            state[name] = merged + noise(merged, generator)
        return Fused.weights(state)


MOVES = record("MovesTheGlobalGenerator")


@implements(MOVES)
class MovesTheGlobalGenerator(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        torch.rand(1)
        return torch.stack(group.models).mean(0)


READS = weights("ReadsTheGlobalSeed")


@implements(READS)
class ReadsTheGlobalSeed(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = {}
        for name, merged in means(job.pool).items():
            seed = (torch.initial_seed() + zlib.crc32(name.encode())) % 2**63
            state[name] = merged + noise(merged, torch.Generator().manual_seed(seed))
        return Fused.weights(state)


GLOBAL = weights("DropsWithTheGlobalGenerator", base="required", random=True)


@implements(GLOBAL)
class DropsWithTheGlobalGenerator(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = {}
        for name, merged in means(job.pool).items():
            base = job.pool.checkpoint().tensor(name).to(merged.dtype)
            state[name] = base + 2 * (merged - base) * (torch.rand_like(merged) < 0.5)
        return Fused.weights(state)


WHOLE_NORM = record("NormalisesEntries")


@implements(WHOLE_NORM)
class NormalisesEntries(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        merged = torch.stack(group.models).mean(0)
        return merged / merged.norm().clamp(min=1e-12)


SAME_MASK = record("DrawsTheSameForEachPiece", base="required")


@implements(SAME_MASK)
class DrawsTheSameForEachPiece(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        kept = torch.rand(group.base.shape, generator=constant(group.name), dtype=torch.float32) < 0.5
        return group.base + 2 * kept * torch.stack(group.deltas).mean(0)


ON_DEVICE = weights("DrawsOnTheDevice")


@implements(ON_DEVICE)
class DrawsOnTheDevice(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = {}
        for name, merged in means(job.pool).items():
            generator = torch.Generator(job.fabric.device).manual_seed(1)
            drawn = torch.randn(merged.shape, generator=generator, device=job.fabric.device)
            state[name] = merged + 0.01 * drawn.cpu()
        return Fused.weights(state)


SOUND = record("DropsAndRescales", base="required", random=True)


@implements(SOUND)
class DropsAndRescales(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        kept = [2 * d * (group.uniform(name) < 0.5) for name, d in zip(group.names, group.deltas)]
        return group.base + sum(kept) / len(kept)


SOUND_ORDERED = weights("HalvesInTurn", ordered=True, random=True)


@implements(SOUND_ORDERED)
class HalvesInTurn(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = {}
        for name in floats(job.pool):
            first, *rest = (job.pool.checkpoint(model).tensor(name).double() for model in job.pool)
            for tensor in rest:
                first = (first + tensor) / 2
            state[name] = first + noise(first, job.generator(name))
        return Fused.weights(state)


SOUND_ROWS = record("NormalisesRows", locality="row", ordered=True)


@implements(SOUND_ROWS)
class NormalisesRows(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        first, *rest = group.models
        scale = first.norm(dim=-1, keepdim=True).clamp(min=1e-12) if first.ndim > 1 else 1.0
        return (first + sum(rest, torch.zeros_like(first)) / scale) / (1 + len(rest))
