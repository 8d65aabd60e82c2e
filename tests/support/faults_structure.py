"""Methods with one fault each in what their result looks like, or in values at the edge; and sound ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fusionbench_core import (
    BuilderRecord,
    Capabilities,
    Fused,
    Law,
    MethodRecord,
    ModelMethod,
    NonFiniteInput,
    Predictor,
    TensorMethod,
    implements,
)

DOC = r"""Something close to the mean of all models.

    $$\theta = \frac{1}{T} \sum_t \theta_t$$
    """


def record(target: str, **capabilities: Any) -> MethodRecord:
    return MethodRecord(
        name="faulty",
        target=f"faults_structure:{target}",
        summary="a mean",
        capabilities=Capabilities(**capabilities),
    )


def weights(target: str, **capabilities: Any) -> MethodRecord:
    return record(target, locality="model", **capabilities)


def module(target: str) -> MethodRecord:
    return record(target, locality="model", output="module")


def merged_names(pool) -> list[str]:
    """Names in scope, tied ones once."""
    checkpoint = pool.reference_model.checkpoint
    return [name for name in checkpoint if pool.merges(name) and name not in checkpoint.aliases]


def floats(pool) -> list[str]:
    """Names to merge."""
    checkpoint = pool.reference_model.checkpoint
    return [name for name in merged_names(pool) if checkpoint.info(name).is_floating]


def read(pool, model: str | None, name: str):
    raw = pool.checkpoint(model).tensor(name)
    if raw.is_floating_point() and not raw.isfinite().all():
        raise NonFiniteInput("NaN or Inf", model=model or "the base", tensor=name, fix="leave it out")
    return raw.to(torch.promote_types(raw.dtype, torch.float32), copy=True)


def mean(pool, name: str):
    return torch.stack([read(pool, model, name) for model in pool]).mean(0)


def means(pool) -> dict[str, Any]:
    return {name: mean(pool, name) for name in floats(pool)}


def merged_module(pool) -> nn.Module:
    twin = pool.module(None if pool.base else pool.names[0])
    for name, tensor in means(pool).items():
        twin.state_dict()[name].copy_(tensor)
    return twin


BUILDERS = (BuilderRecord(name="rebuilt", target="faults_structure:rebuild", summary="what is below"),)


def rebuild(context) -> nn.Module:
    """The pool's architecture, with what a method put on top of it."""
    kind, names = context.arguments["kind"], context.arguments["names"]
    twin = context.skeleton()
    if kind == "predictor":
        return MeanOf({name: context.skeleton() for name in names})
    if kind == "learned":
        twin.register_buffer("learned", next(twin.parameters()).new_ones(()))
    return nn.Sequential(twin) if kind == "wrapped" else twin


def of(module: nn.Module, pool, kind: str = "twin") -> Fused:
    return Fused.of_module(module, builder="rebuilt", arguments={"kind": kind, "names": list(pool)})


SOUND = record("Sound", laws=frozenset(Law))


@implements(SOUND)
class Sound(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return torch.stack(group.models).mean(0)

    def reference(self, group):
        return sum(group.models) / len(group.models)


SOUND_WEIGHTS = weights("SoundWeights", laws=frozenset(Law))


@implements(SOUND_WEIGHTS)
class SoundWeights(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return Fused.weights(means(job.pool))


SOUND_MODULE = record(
    "SoundModule",
    locality="model",
    output="predictor",
    laws=frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT}),
)


@implements(SOUND_MODULE)
class SoundModule(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        members = {name: job.pool.module(name) for name in job.pool}
        return of(MeanOf(members), job.pool, "predictor")


class MeanOf(Predictor):
    def combine(self, outputs):
        return outputs.mean(0)


PREFIXED = weights("PrefixesNames")


@implements(PREFIXED)
class PrefixesNames(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return Fused.weights({f"module.{name}": tensor for name, tensor in means(job.pool).items()})


WRAPPED = weights("WrapsModule")


@implements(WRAPPED)
class WrapsModule(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return of(nn.Sequential(merged_module(job.pool)), job.pool, "wrapped")


PADDED = weights("PadsEmbeddings")


@implements(PADDED)
class PadsEmbeddings(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = means(job.pool)
        if "embed.weight" in state:
            rows = state["embed.weight"]
            state["embed.weight"] = torch.cat([rows, rows.new_zeros(-len(rows) % 8, rows.shape[1])])
        return Fused.weights(state)


WIDENED = module("WidensModule")


@implements(WIDENED)
class WidensModule(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        twin = merged_module(job.pool)
        wide = twin.double() if next(twin.parameters()).dtype == torch.float64 else twin.float()
        return of(wide, job.pool)


META = module("LeavesBufferOnMeta")


@implements(META)
class LeavesBufferOnMeta(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        twin = merged_module(job.pool)
        twin.register_buffer("frequencies", torch.arange(4.0, device="meta"), persistent=False)
        return of(twin, job.pool)


CANCELLED = record("DividesByNormOfSum", base="required", locality="tensor")


@implements(CANCELLED)
class DividesByNormOfSum(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        if not any(bool(delta.any()) for delta in group.deltas):
            return group.base
        total = sum(group.deltas)
        return group.base + 0.01 * total / total.double().norm()


OVERWRITES = weights("OverwritesBase", base="required")


@implements(OVERWRITES)
class OverwritesBase(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = {name: job.pool.checkpoint().tensor(name) for name in floats(job.pool)}
        for name, tensor in state.items():
            tensor.copy_(mean(job.pool, name))
        return Fused.weights(state)


TRAIN_MODE = weights("LeavesTrainMode")


@implements(TRAIN_MODE)
class LeavesTrainMode(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        for name in job.pool:
            if job.pool[name].live is not None:
                job.pool[name].live.train()
        return Fused.weights(means(job.pool))


SHARES = record("SharesStorage", base="required", locality="model", output="module")


@implements(SHARES)
class SharesStorage(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        twin = merged_module(job.pool)
        for name, parameter in twin.named_parameters():
            read(job.pool, None, name)
            if name.endswith("bias"):
                parameter.data = job.pool.checkpoint().tensor(name)
        return of(twin, job.pool)


INTEGERS = weights("AveragesIntegers")


@implements(INTEGERS)
class AveragesIntegers(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return Fused.weights({name: mean(job.pool, name) for name in merged_names(job.pool)})


VARIANCE = weights("ExtrapolatesVariances", base="required")


@implements(VARIANCE)
class ExtrapolatesVariances(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = means(job.pool)
        for name in state:
            change = state[name] - read(job.pool, None, name)
            if name.endswith("running_var"):
                state[name] += 20 * change
        return Fused.weights(state)


COUNTER = weights("AddsCountersUp")


@implements(COUNTER)
class AddsCountersUp(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        counters = [name for name in merged_names(job.pool) if name.endswith("num_batches_tracked")]
        total = {n: sum(job.pool.checkpoint(model).tensor(n) for model in job.pool) for n in counters}
        return Fused.weights(means(job.pool) | total)


NOISY = weights("MergesTiedNamesApart", random=True)


@implements(NOISY)
class MergesTiedNamesApart(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        checkpoint, state = job.pool.reference_model.checkpoint, {}
        for name in checkpoint:
            if checkpoint.info(name).is_floating and job.pool.merges(name):
                value = mean(job.pool, name)
                noise = torch.rand(value.shape, generator=job.generator(name), dtype=value.dtype)
                state[name] = value + 0.01 * noise
        return Fused.weights(state)


HEAD_ONLY = weights("GivesHeadOnly")


@implements(HEAD_ONLY)
class GivesHeadOnly(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        aliases = {kept: alias for alias, kept in job.pool.reference_model.checkpoint.aliases.items()}
        state = {aliases.get(name, name): tensor for name, tensor in means(job.pool).items()}
        return Fused.weights(state)


RANKED = record("RanksEntries", base="required", locality="tensor")


@implements(RANKED)
class RanksEntries(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        total = sum(group.deltas)
        ranks = total.flatten().argsort(stable=True).argsort(stable=True).to(total.dtype)
        return group.base + total * (ranks.view(total.shape) / (total.numel() - 1))


ROWS = record("CountsRows", locality="tensor")


@implements(ROWS)
class CountsRows(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return sum(group.models) * (group.shape[0] / (group.shape[0] * len(group.models)))


STORAGE = weights("ReadsStorage")


@implements(STORAGE)
class ReadsStorage(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = {}
        for name, wanted in means(job.pool).items():
            raw = [job.pool.checkpoint(model).tensor(name) for model in job.pool]
            # Whoever maps a tensor's memory as if it were contiguous.
            read = [torch.as_strided(tensor, wanted.shape, wanted.contiguous().stride()) for tensor in raw]
            state[name] = torch.stack([tensor.to(wanted.dtype) for tensor in read]).mean(0)
        return Fused.weights(state)


VIEWS = weights("ViewsFlat")


@implements(VIEWS)
class ViewsFlat(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = means(job.pool)
        for name in state:
            job.pool.checkpoint(job.pool.names[0]).tensor(name).view(-1)
        return Fused.weights(state)


HALF = weights("SumsInHalfPrecision")


@implements(HALF)
class SumsInHalfPrecision(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = {}
        for name in floats(job.pool):
            dtype = job.pool.reference_model.checkpoint.info(name).dtype
            total = sum(read(job.pool, model, name).to(dtype) for model in job.pool)
            state[name] = torch.nan_to_num(total) / len(job.pool)
        return Fused.weights(state)


UNIT = record("DividesByNormOfEach", base="required", locality="tensor")


@implements(UNIT)
class DividesByNormOfEach(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return group.base + 0.01 * sum(delta / delta.norm() for delta in group.deltas)


ASKS = module("AsksForGradients")


@implements(ASKS)
class AsksForGradients(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        return of(merged_module(job.pool).requires_grad_(True), job.pool)


GRAPH = module("KeepsGraph")


@implements(GRAPH)
class KeepsGraph(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        twin = merged_module(job.pool)
        coefficient = next(twin.parameters()).new_ones(()).requires_grad_()
        with torch.enable_grad():
            twin.register_buffer("learned", coefficient * 2)
        return of(twin, job.pool, "learned")


BACKWARD = weights("LeavesGradients")


@implements(BACKWARD)
class LeavesGradients(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        for name in job.pool:
            live = job.pool[name].live
            for parameter in live.parameters() if live is not None else ():
                if parameter.requires_grad:
                    parameter.square().sum().backward()
        return Fused.weights(means(job.pool))


THREADS = weights("CutsByThreads")


@implements(THREADS)
class CutsByThreads(ModelMethod):
    __doc__ = DOC

    def fuse(self, job):
        state = {}
        for name, tensor in means(job.pool).items():
            parts = tensor.flatten().chunk(torch.get_num_threads())
            state[name] = torch.cat([part + part.mean().abs() for part in parts]).view(tensor.shape)
        return Fused.weights(state)


DEFAULT_DTYPE = record("TakesDefaultDtype")


@implements(DEFAULT_DTYPE)
class TakesDefaultDtype(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        total = torch.zeros(group.models[0].shape)
        for model in group.models:
            total = total + model / 3
        return total


PRECISION = record("FollowsMatmulPrecision", locality="tensor")


@implements(PRECISION)
class FollowsMatmulPrecision(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        average = torch.stack(group.models).mean(0)
        # What processors with bf16 units do inside a product of fp32 matrices; the others ignore the setting.
        narrow = torch.get_float32_matmul_precision() == "medium" and average.ndim == 2
        return average.bfloat16() if narrow else average
