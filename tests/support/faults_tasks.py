"""A sound task, and one for each fault that the conformance kit must find."""

from __future__ import annotations

import dataclasses
import re
from contextlib import suppress

import torch
from torch.nn import functional as F

import fusionbench_core as fb
from fusionbench_core.testing.zoo import CLASSES, ZooTask, case

PROVIDES = ("evaluate", "batches", "labels", "logits", "loss")


def record(name: str, **facts) -> fb.TaskRecord:
    """The record of a class of this module."""
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    facts = {"provides": PROVIDES, "metrics": ("accuracy", "loss"), **facts}
    return fb.TaskRecord(name=snake, target=f"faults_tasks:{name}", summary="for tests", **facts)


class Sound(ZooTask):
    """Three clusters; the trunk has dropout, so that its mode matters."""

    record = record("Sound")

    @classmethod
    def example(cls):
        return {"samples": 50}

    @classmethod
    def example_trunk(cls):
        return torch.nn.Sequential(case("mlp").models["alpha"], torch.nn.Dropout(0.3), torch.nn.Identity())

    def card(self):
        card = super().card()
        return dataclasses.replace(card, labels=tuple(f"cluster {number}" for number in range(CLASSES)))


def changed(result, **facts):
    """A result with other facts."""
    return dataclasses.replace(result, **facts)


class NoLicence(Sound):
    record = record("NoLicence")

    def card(self):
        return dataclasses.replace(super().card(), licence="unknown")


class UnknownMetric(Sound):
    record = record("UnknownMetric", metrics=("accuracy", "loss", "sharpness"))


class StaysInItsMode(Sound):
    """Forgets to switch dropout off."""

    record = record("StaysInItsMode")

    def evaluate(self, model, context):
        class AlwaysAsItIs(torch.nn.Module):
            def forward(self, **inputs):
                with torch.random.fork_rng(devices=[]):
                    for module in model.modules():
                        module.training = was[module]
                    return model(**inputs)

        was = {module: module.training for module in model.modules()}
        return super().evaluate(AlwaysAsItIs(), context)


class HashOfAString(Sound):
    record = record("HashOfAString")

    def fingerprint(self):
        return str(hash("the task"))


class LeavesEvalMode(Sound):
    record = record("LeavesEvalMode")

    def evaluate(self, model, context):
        return super().evaluate(model.eval(), context)


class LeavesAHook(Sound):
    record = record("LeavesAHook")

    def evaluate(self, model, context):
        model.register_forward_hook(lambda *arguments: None)
        return super().evaluate(model, context)


class FreezesTheModel(Sound):
    record = record("FreezesTheModel")

    def evaluate(self, model, context):
        return super().evaluate(model.requires_grad_(False), context)


class Percent(Sound):
    record = record("Percent")

    def evaluate(self, model, context):
        result = super().evaluate(model, context)
        metrics = {**result.metrics, "accuracy": 100 * result.metrics["accuracy"]}
        samples = {**result.samples, "accuracy": [metrics["accuracy"]] * result.n}
        return changed(result, metrics=metrics, samples=samples, intervals={"accuracy": (0.0, 100.0)})

    def metrics(self):
        wide = fb.Metric(higher_is_better=True, low=0.0, high=1.0, perfect=1.0, interval="bootstrap")
        return {**super().metrics(), "accuracy": wide}


class LabelsOffByOne(Sound):
    """Compares predictions with the label of the next sample."""

    record = record("LabelsOffByOne")

    def evaluate(self, model, context):
        result = super().evaluate(model, context)
        labels = [*result.samples["label"][1:], result.samples["label"][0]]
        hits = sum(p == y for p, y in zip(result.samples["predicted"], labels))
        return changed(
            result,
            metrics={**result.metrics, "accuracy": hits / result.n},
            intervals={"accuracy": fb.wilson_interval(hits, result.n)},
            samples={**result.samples, "label": labels},
        )


class MeanOfBatches(Sound):
    record = record("MeanOfBatches")

    def evaluate(self, model, context):
        result = super().evaluate(model, context)
        parts = torch.tensor(result.samples["loss"], dtype=torch.float64).split(context.batch_size)
        loss = float(torch.stack([part.mean() for part in parts]).mean())
        return changed(result, metrics={**result.metrics, "loss": loss})


class DropsTheLastBatch(Sound):
    record = record("DropsTheLastBatch")

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64):
        batches = list(
            super().batches(split, labelled=labelled, limit=limit, seed=seed, batch_size=batch_size)
        )
        whole = [batch for batch in batches if len(batch) == batch_size]
        return iter(whole or batches)


class IgnoresLimit(Sound):
    record = record("IgnoresLimit")

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64):
        return super().batches(split, labelled=labelled, seed=seed, batch_size=batch_size)


class SaysItTookAll(Sound):
    record = record("SaysItTookAll")

    def evaluate(self, model, context):
        return changed(super().evaluate(model, context), n=self.samples)


class NoRecord(Sound):
    record = record("NoRecord")

    def evaluate(self, model, context):
        return changed(super().evaluate(model, context), samples={}, samples_sha256="")


class RecordOfOtherSamples(Sound):
    record = record("RecordOfOtherSamples")

    def evaluate(self, model, context):
        result = super().evaluate(model, context)
        return changed(
            result, samples={**result.samples, "loss": [2 * loss for loss in result.samples["loss"]]}
        )


class NoInterval(Sound):
    record = record("NoInterval")

    def evaluate(self, model, context):
        return changed(super().evaluate(model, context), intervals={})


class CallsItWilson(Sound):
    """The normal approximation, under another name."""

    record = record("CallsItWilson")

    def evaluate(self, model, context):
        result = super().evaluate(model, context)
        p = result.metrics["accuracy"]
        half = 1.96 * (p * (1 - p) / result.n) ** 0.5
        return changed(result, intervals={"accuracy": (max(0.0, p - half), min(1.0, p + half))})


class SumsTheLoss(Sound):
    record = record("SumsTheLoss")

    def loss(self, logits, labels):
        return F.cross_entropy(logits.float(), labels, reduction="sum")


class OtherHeadInside(Sound):
    """Measures with logits of another temperature and order than the attached model gives."""

    record = record("OtherHeadInside")

    def evaluate(self, model, context):
        class Rolled(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, **inputs):
                logits = self.model(**inputs)
                return logits if logits.abs().max() in (0, 100) else logits.roll(1, dims=1)

        return super().evaluate(Rolled(), context)


class AlwaysLabelled(Sound):
    record = record("AlwaysLabelled")

    def batches(self, split, *, labelled, **options):
        return super().batches(split, labelled=True, **options)


class LabelsAmongInputs(Sound):
    record = record("LabelsAmongInputs")

    def attach(self, trunk):
        inner = super().attach(trunk)

        class DropsThem(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.trunk = inner, trunk

            def forward(self, x, y):
                return self.inner(x=x)

        return DropsThem()

    def batches(self, split, *, labelled, **options):
        for batch in super().batches(split, labelled=True, **options):
            inputs = {**batch.inputs, "y": batch.labels}
            yield fb.Batch(inputs, batch.labels if labelled else None, batch.indices)


class TestDataForTraining(Sound):
    record = record("TestDataForTraining")

    def batches(self, split, **options):
        return super().batches("test", **options)


class NeedsTheNetwork(Sound):
    record = record("NeedsTheNetwork")

    @classmethod
    def example_trunk(cls):
        import socket

        # Nobody listens there; whether anybody does makes no difference to what is made.
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=1).close()
        return super().example_trunk()


class OtherTrunkEachTime(Sound):
    record = record("OtherTrunkEachTime")

    @classmethod
    def example_trunk(cls):
        trunk = super().example_trunk()
        trunk.register_buffer("made", torch.tensor([len(TRUNKS)]))
        TRUNKS.append("one more")
        return trunk


TRUNKS: list[str] = []


class KeepsAllFeatures(Sound):
    record = record("KeepsAllFeatures")

    def evaluate(self, model, context):
        result = super().evaluate(model, context)
        features = [[float(place)] * 1000 for place in range(result.n)]
        return changed(result, samples={**result.samples, "features": features})
