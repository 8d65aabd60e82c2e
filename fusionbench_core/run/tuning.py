"""Choose method parameters on the validation split, never on test."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from pydantic import ValidationError

from fusionbench_core.config.errors import explain
from fusionbench_core.errors import ConfigError, MissingCapability
from fusionbench_core.methods.method import Method
from fusionbench_core.registry import Registry
from fusionbench_core.report import curve
from fusionbench_core.run.console import Console
from fusionbench_core.run.fusing import fuse_in_memory, live
from fusionbench_core.run.prepare import Prepared, compute_device
from fusionbench_core.tasks.metric import KNOWN
from fusionbench_core.tasks.pool import TaskPool


def tune(prepared: Prepared, registry: Registry, console: Console) -> tuple[Method, dict[str, Any]]:
    """The method with the best mean over tasks on the validation split, and what was tried.

    Compared is the accuracy; where a task has none, as in language modelling, the loss of all of them. All
    combinations of `config.tune` are tried in the order given; the first of equals wins. Each is fused in
    memory.

    Raises:
        ConfigError: if a parameter does not exist or a value is out of range.
        MissingCapability: without a task pool, or if its tasks have no such metric in common.
    """
    if prepared.tasks is None:
        raise MissingCapability(
            "parameters are tuned on validation data, and the run has no task pool",
            config="tune",
            fix="choose a task pool, or remove `tune`",
        )
    tasks = TaskPool(prepared.tasks.tasks, prepared.tasks.config.model_copy(update={"split": "validation"}))
    candidates = _candidates(prepared.method, prepared.config.tune or {})
    console.stage("tune", f"{len(candidates)} candidates on {len(tasks.tasks)} tasks, split validation")
    scores = []
    for number, (values, method) in enumerate(candidates, 1):
        scores.append(_score(replace(prepared, method=method), tasks, registry))
        console.line(f"{_text(values)}  {scores[-1].value:.4f}")
        console.progress(number, len(candidates), _text(values))
    best = max(range(len(scores)), key=lambda index: (scores[index].goodness, -index))
    return candidates[best][1], _details([values for values, _ in candidates], scores, best)


class Score(NamedTuple):
    """Mean over tasks of one metric that all of them have."""

    metric: str
    value: float

    @property
    def goodness(self) -> float:
        """Larger is better."""
        return self.value if KNOWN[self.metric].higher_is_better else -self.value


def _candidates(method: Method, grid: Mapping[str, list[Any]]) -> list[tuple[dict[str, Any], Method]]:
    empty = [name for name, values in grid.items() if not values]
    if empty:
        raise ConfigError(
            f"`tune.{empty[0]}` lists no values", config="tune", fix="list what to try, e.g. [0.2, 0.4]"
        )
    cls, own = type(method), method.model_dump()
    found = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values))
        try:
            found.append((chosen, cls.model_validate({**own, **chosen})))
        except ValidationError as error:
            raise explain(error, cls, where="tune") from error
    return found


def _score(prepared: Prepared, tasks: TaskPool, registry: Registry) -> Score:
    adaptation = tasks.for_adaptation(prepared.method.capabilities.tasks)
    model = live(fuse_in_memory(prepared, registry, adaptation), prepared.pool)
    results = tasks.evaluate(model, device=compute_device(prepared.config.fabric)).values()
    for metric in KNOWN:
        if all(metric in result.metrics for result in results):
            return Score(metric, statistics.fmean(result.metrics[metric] for result in results))
    raise MissingCapability(
        "the tasks have no metric in common that parameters could be tuned for",
        config="tune",
        why="\n".join(f"{result.task} has {', '.join(result.metrics)}" for result in results),
        fix=f"choose tasks that all have one of {', '.join(KNOWN)}",
    )


def _details(tried: list[dict[str, Any]], scores: list[Score], best: int) -> dict[str, Any]:
    chosen = {f"tuned {name}": value for name, value in tried[best].items()}
    measured = [score.value for score in scores]
    names = list(tried[0])
    numeric = all(isinstance(values[names[0]], (int, float)) for values in tried)
    if len(names) == 1 and numeric and len(tried) > 1:
        xs = [values[names[0]] for values in tried]
        picture = curve(
            {"mean of all tasks": measured},
            x=xs,
            title=f"Tuning of {names[0]} on the validation split",
            x_label=names[0],
            y_label=scores[best].metric,
        )
        return {**chosen, "tuning": picture}
    return {**chosen, "tuning": {_text(values): value for values, value in zip(tried, measured)}}


def _text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
