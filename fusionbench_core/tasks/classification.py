"""Single-label classification, for any modality: accuracy and cross-entropy over one pass."""

from __future__ import annotations

import hashlib
import json
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench_core.errors import TaskError
from fusionbench_core.tasks.result import TaskResult, wilson_interval
from fusionbench_core.tasks.task import EvalContext, Task


class ClassificationTask(Task):
    """A task whose model gives logits `(n, classes)` and whose labels are class indices `(n,)`.

    Subclasses give `card`, `attach`, `batches` and `fingerprint`; measuring is done here, once.
    """

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), labels)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, context: EvalContext) -> TaskResult:
        """Accuracy with Wilson's interval, mean cross-entropy in nats (over samples, not batches).

        Raises:
            TaskError: if the split is empty, or the logits hold NaN or do not fit the labels.
        """
        started = time.perf_counter()
        modes = {module: module.training for module in model.modules()}
        model.eval()
        try:
            order, predicted, labels, losses = self._measure(model, context)
        finally:
            for module, training in modes.items():
                module.training = training
        samples = {"index": order, "predicted": predicted, "label": labels, "loss": losses}
        record = json.dumps([order, predicted, labels], separators=(",", ":"))
        correct = sum(p == y for p, y in zip(predicted, labels))
        return TaskResult(
            task=self.name,
            metrics={"accuracy": correct / len(labels), "loss": sum(losses) / len(losses)},
            n=len(labels),
            split=context.split,
            intervals={"accuracy": wilson_interval(correct, len(labels))},
            seconds=time.perf_counter() - started,
            fingerprint=self.fingerprint(),
            samples_sha256=hashlib.sha256(record.encode()).hexdigest(),
            samples=samples,
        )

    def _measure(self, model: nn.Module, context: EvalContext) -> tuple[list, list, list, list]:
        rows: list[tuple[int, int, int, float]] = []
        total = self.card().splits.get(context.split, 0)
        total = min(total, context.limit or total)
        batches = self.batches(
            context.split, labelled=True, limit=context.limit, batch_size=context.batch_size
        )
        for batch in batches:
            batch = batch.to(context.device)
            logits = model(**batch.inputs).float()
            if batch.labels is None or logits.ndim != 2 or len(logits) != len(batch.labels):
                raise TaskError(
                    f"task {self.name}: logits of shape {list(logits.shape)} do not fit the labels"
                )
            if not torch.isfinite(logits).all():
                raise TaskError(
                    f"task {self.name}: the model's logits hold NaN or Inf",
                    why="the fused weights are probably far too large",
                    fix="try a smaller scaling factor",
                )
            loss = F.cross_entropy(logits, batch.labels, reduction="none")
            columns = (batch.indices, logits.argmax(1), batch.labels, loss)
            rows.extend(zip(*(column.tolist() for column in columns)))
            context.on_progress(len(rows), total)
        if not rows:
            raise TaskError(f"task {self.name} has no samples in split {context.split!r}")
        rows.sort()
        order, predicted, labels, losses = (list(column) for column in zip(*rows))
        return order, predicted, labels, losses
