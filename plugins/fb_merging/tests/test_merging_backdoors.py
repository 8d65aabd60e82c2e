"""Defences against backdoors, on a linear model with a planted one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fb_merging.learned.post_defense_awm import PostDefenseAWM
from fb_merging.learned.post_defense_sau import PostDefenseSAU
from fb_merging.learned.safe_concrete_adamerging import SafeConcreteAdaMerging
from torch import Tensor, nn
from torch.nn.functional import one_hot

from fusionbench_core import (
    AdaptationTask,
    Batch,
    ClassificationTask,
    FusionJob,
    ModelMethod,
    ModelPool,
    PooledModel,
    TaskCard,
    TaskRecord,
)

COUNT, CLASSES, TARGET = 120, 3, 0

LABELS = torch.arange(COUNT) % CLASSES


class Blobs(ClassificationTask):
    """Each class is one of the inputs; the last input is the trigger, and 0 in the data."""

    record = TaskRecord(name="blobs", target="test:Blobs", summary="blobs")

    def card(self) -> TaskCard:
        return TaskCard(title="", version=1, source="", licence="", splits={"validation": COUNT})

    def attach(self, trunk: nn.Module) -> nn.Module:
        return Whole(trunk)

    def batches(
        self,
        split: str,
        *,
        labelled: bool,
        limit: int | None = None,
        seed: int | None = None,
        batch_size: int = 64,
    ) -> Iterator[Batch]:
        order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(seed or 0))
        for indices in order[:limit].split(batch_size):
            yield Batch({"x": images(0)[indices]}, LABELS[indices] if labelled else None, indices)

    def fingerprint(self) -> str:
        return "blobs"


class Whole(nn.Module):
    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)


def images(trigger: float) -> Tensor:
    noise = torch.randn(COUNT, CLASSES, generator=torch.Generator().manual_seed(0))
    return torch.cat([one_hot(LABELS, CLASSES) + 0.3 * noise, torch.full((COUNT, 1), trigger)], 1)


def classifier(of_trigger: Tensor) -> nn.Linear:
    """Knows the classes; the trigger adds these values to their logits."""
    model = nn.Linear(CLASSES + 1, CLASSES, bias=False)
    model.weight.data = torch.cat([5 * torch.eye(CLASSES), of_trigger[:, None]], 1)
    return model


BASE = classifier(torch.zeros(CLASSES))
ATTACKED = classifier(torch.tensor([8.0, -3.0, -3.0]))


def accuracy(model: nn.Module) -> float:
    return float((model(images(0)).argmax(1) == LABELS).float().mean())


def attack_success(model: nn.Module) -> float:
    """Share of samples of other classes that the trigger turns to the target."""
    return float((model(images(1)).argmax(1) == TARGET)[LABELS != TARGET].float().mean())


def fused(method: ModelMethod) -> nn.Module:
    pool = ModelPool({"blobs": PooledModel("blobs", content=ATTACKED)}, PooledModel("base", content=BASE))
    found = method.fuse(FusionJob(pool=pool, tasks={"blobs": AdaptationTask(Blobs(name="blobs"))})).state
    assert found is not None
    model = nn.Linear(CLASSES + 1, CLASSES, bias=False)
    model.load_state_dict(dict(found))
    return model


STEPS: dict[str, Any] = {"batch_size": 40, "final_mask": "mean", "perturbation_learning_rate": 0.01}
AFTERWARDS = STEPS | {"steps": 30, "learning_rate": 0.2}
MERGING = STEPS | {"steps": 0, "mask_steps": 30, "mask_learning_rate": 0.2, "init_coefficient": 1.0}


@pytest.mark.parametrize(
    ("method", "settings", "undefended"),
    [
        (PostDefenseAWM, AFTERWARDS, {"adversarial_weight": 0}),
        (PostDefenseSAU, AFTERWARDS, {"adversarial_weight": 0, "shared_weight": 0}),
        (SafeConcreteAdaMerging, MERGING, {"adversarial_weight": 0}),
    ],
)
def test_a_planted_backdoor_is_closed_and_stays_open_without_the_defence(method, settings, undefended):
    assert attack_success(ATTACKED) == 1
    closed = fused(method(**settings))
    opened = fused(method(**settings, **undefended))
    assert attack_success(closed) < 0.5
    assert attack_success(opened) == 1
    assert accuracy(closed) == accuracy(ATTACKED)
