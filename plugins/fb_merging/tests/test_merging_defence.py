"""Methods that learn a mask against perturbations of the inputs."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fb_merging.learned.attacked_batch import AttackedBatch, kept_predictions
from fb_merging.learned.concrete_adamerging import ConcreteAdaMerging
from fb_merging.learned.perturbation import Perturbation
from fb_merging.learned.post_defense_awm import PostDefenseAWM
from fb_merging.learned.post_defense_sau import PostDefenseSAU
from fb_merging.learned.safe_concrete_adamerging import SafeConcreteAdaMerging
from torch import Tensor

from fusionbench_core import (
    AdaptationTask,
    Batch,
    Fused,
    FusionJob,
    MissingCapability,
    ModelPool,
    PooledModel,
    TaskModels,
    UnsupportedArchitecture,
)
from fusionbench_core.testing.zoo import case

CASE = case("mlp", count=2, samples=24)


def job_of(architecture: str = "mlp", merged: bool = False, **more: Any) -> FusionJob:
    """Two models, or with `merged` the first alone; two tasks."""
    small = CASE if architecture == "mlp" else case(architecture, count=2, samples=24)
    models = {name: PooledModel(name, content=model) for name, model in small.models.items()}
    if merged:
        models = dict([next(iter(models.items()))])
    tasks = {name: AdaptationTask(task) for name, task in small.tasks.items()}
    return FusionJob(pool=ModelPool(models, PooledModel("base", content=small.base)), tasks=tasks, **more)


def state_of(fused: Fused) -> dict[str, Tensor]:
    assert fused.state is not None
    return {name: tensor.double() for name, tensor in fused.state.items()}


def seen(clean: Tensor, attacked: Tensor) -> AttackedBatch:
    """What a model gives that has these logits."""
    batch = Batch({"x": clean}, None, torch.arange(len(clean)))
    models = SimpleNamespace(logits=lambda task, parameters, batch: batch.inputs["x"])
    return AttackedBatch(models, 0, {}, batch, replace(batch, inputs={"x": attacked}))  # type: ignore[arg-type]


def drawn(count: int, rows: int = 40, classes: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [2 * torch.randn(rows, classes, generator=generator) for _ in range(count)]


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()


def entropy(logits: np.ndarray) -> float:
    p = softmax(logits)
    return float(-(p * np.log(p)).sum())


def test_the_first_step_of_a_perturbation_turns_predictions_away_in_every_entry():
    job = job_of()
    models = TaskModels(job, "test", job.pool.module(), split="validation", batch_size=24)
    perturbation = Perturbation(models, "validation", 0.01)
    state = {name: each.detach() for name, each in CASE.base.named_parameters()}
    perturbation.descend(0, state, kept_predictions)
    for number, task in enumerate(CASE.tasks.values()):
        (batch,) = task.batches("validation", labelled=False)
        x = batch.inputs["x"].double()
        head = task.attach(torch.nn.Identity()).get_buffer("head").double()
        delta = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
        wide = CASE.base.double()
        try:
            log_p = (wide(x + delta) @ head.T).log_softmax(1)
            chosen = log_p.argmax(1)  # at no perturbation the two are the same
            (-log_p[torch.arange(len(x)), chosen]).mean().backward()
        finally:
            CASE.base.float()
        assert delta.grad is not None
        moved = perturbation.added(number, batch).inputs["x"] - batch.inputs["x"]
        # The first step of Adam has the learning rate's length.
        torch.testing.assert_close(moved[0].double(), 0.01 * delta.grad.sign(), rtol=0, atol=1e-5)


def test_masked_and_perturbed_entropies_add_up():
    clean, attacked = drawn(2)
    expected = np.mean([entropy(a) + 0.25 * entropy(b) for a, b in zip(clean.numpy(), attacked.numpy())])
    found = PostDefenseAWM(adversarial_weight=0.25).defence_loss(seen(clean, attacked), seen(clean, clean))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_unlearning_is_what_its_formulas_say():
    rows = drawn(4)
    method = PostDefenseSAU(
        adversarial_weight=0.1, shared_weight=0.3, attack_weight=0.7, agreement_weight=0.4
    )
    attack, defence, shared, poisoned = [], [], 0, 0
    for clean, turned, own, own_turned in zip(*(each.double().numpy() for each in rows)):
        y, found, own_y, own_found = (each.argmax() for each in (clean, turned, own, own_turned))
        p, q = softmax(turned), softmax(own_turned)
        m = (p + q) / 2
        in_both = found != y and own_found != own_y and found == own_found
        shared += in_both
        divergence = 0 if in_both else (p * np.log(p / m) + q * np.log(q / m)).sum() / 2
        attack.append(0.7 * math.log(p[y]) + 0.4 * divergence)
        bad = own_found not in (y, own_y)
        poisoned += bad
        loss = entropy(clean) + 0.1 * entropy(turned)
        defence.append(loss - 0.3 * math.log(1 - p[own_found]) * bad)
    assert shared > 0
    assert poisoned > 0
    views = seen(*rows[:2]), seen(*rows[2:])
    assert float(method.attack_loss(*views)) == pytest.approx(np.mean(attack), rel=1e-5)
    assert float(method.defence_loss(*views)) == pytest.approx(np.mean(defence), rel=1e-5)


def test_certain_predictions_give_finite_losses_and_gradients():
    sure = torch.tensor([[1e4, 0.0, -1e4], [-torch.inf, 0.0, 5.0]], requires_grad=True)
    own = torch.tensor([[0.0, 1e4, 0.0], [0.0, 0.0, 1e4]])
    views = seen(own, sure), seen(sure.detach(), own)
    loss = PostDefenseSAU().attack_loss(*views) + PostDefenseSAU().defence_loss(*views)
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert sure.grad is not None
    assert bool(sure.grad.isfinite().all())


@pytest.mark.parametrize("method", [PostDefenseAWM, PostDefenseSAU])
def test_without_steps_the_mean_mask_gives_the_merged_model(method):
    found = state_of(method(steps=0, final_mask="mean").fuse(job_of(merged=True)))
    (model,) = list(CASE.models.values())[:1]
    for name, value in model.named_parameters():
        torch.testing.assert_close(found[name], value.detach().double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", [PostDefenseAWM, PostDefenseSAU])
def test_all_tasks_of_the_pool_are_defended(method):
    job = job_of(merged=True)
    made = method(steps=12, learning_rate=0.3, batch_size=24, final_mask="mean").fuse(job)
    losses = made.details["losses"]["series"]["loss"]
    assert sum(losses[-4:]) < sum(losses[:4])
    assert all(task.used["validation"] > 0 for task in job.tasks.values())
    with pytest.raises(MissingCapability, match="task"):
        method().fuse(replace(job, tasks={}))


def test_a_weight_of_zero_leaves_concrete_adamerging():
    settings: dict[str, Any] = {
        "steps": 2,
        "mask_steps": 2,
        "batch_size": 24,  # whole splits, so that the order of samples does not matter
        "learning_rate": 0.05,
        "mask_learning_rate": 0.1,
        "inner_learning_rate": 0.1,
        "final_mask": "mean",
    }
    plain = state_of(ConcreteAdaMerging(**settings).fuse(job_of()))
    safe = state_of(SafeConcreteAdaMerging(**settings, adversarial_weight=0).fuse(job_of()))
    strong = SafeConcreteAdaMerging(**settings, adversarial_weight=5, perturbation_learning_rate=1)
    other = state_of(strong.fuse(job_of()))
    for name, tensor in plain.items():
        torch.testing.assert_close(safe[name], tensor, rtol=1e-3, atol=1e-5)
    assert any(not torch.allclose(other[name], tensor, rtol=1e-3) for name, tensor in plain.items())


@pytest.mark.parametrize(
    ("method", "merged"),
    [
        (PostDefenseSAU(steps=4, batch_size=5, learning_rate=0.1), True),
        (SafeConcreteAdaMerging(steps=1, mask_steps=3, batch_size=5, inner_learning_rate=0.1), False),
    ],
    ids=["post", "safe"],
)
def test_an_interrupted_defence_goes_on(tmp_path, method, merged):
    whole = method.fuse(job_of(merged=merged))

    def interrupt(done: int, total: int, message: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method.fuse(job_of(merged=merged, directory=tmp_path, on_progress=interrupt))
    resumed = method.fuse(job_of(merged=merged, directory=tmp_path))
    assert resumed.details == whole.details
    assert all(torch.equal(tensor, state_of(resumed)[name]) for name, tensor in state_of(whole).items())


def test_inputs_that_are_no_numbers_are_refused():
    with pytest.raises(UnsupportedArchitecture, match="perturbed"):
        SafeConcreteAdaMerging(mask_steps=1).fuse(job_of("tied_lm"))
