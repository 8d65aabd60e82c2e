"""Cases of the zoo that do not fit, and how to fuse them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from fusionbench_core.api import fuse
from fusionbench_core.checkpoints import StateDictCheckpoint
from fusionbench_core.pools import ModelPool, PooledModel
from fusionbench_core.records import implements
from fusionbench_core.testing.check import Inapplicable
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.zoo import NAMES, ZOO_TASK, Case, ZooTask, copy_of, state_of


class Stopping(StateDictCheckpoint):
    """Reading it is where the user presses Ctrl-C."""

    reached = False

    def tensor(self, key: str) -> torch.Tensor:
        self.reached = True
        raise KeyboardInterrupt

    def fingerprint(self) -> str:
        return "interrupted"


@implements(ZOO_TASK)
class StoppingTask(ZooTask):
    """Its first batch is where the user presses Ctrl-C."""

    def batches(self, *_: Any, **__: Any) -> Iterator[Any]:
        raise KeyboardInterrupt


@implements(replace(ZOO_TASK, name="poor_task", provides=("evaluate",)))
class PoorTask(ZooTask):
    """It can be measured, and that is all."""


_AS_DECLARED: Any = object()


def fuse_case(
    subject: MethodSubject, case: Case, *, base: Any = _AS_DECLARED, tasks: Any = _AS_DECLARED, **options: Any
) -> Any:
    """Fuse a case with this base and these tasks; by default those that it declares to need."""
    declared = subject.record.capabilities
    if base is _AS_DECLARED:
        base = None if declared.base == "forbidden" else case.base
    if tasks is _AS_DECLARED:
        tasks = case.tasks
    if tasks is not None and (declared.tasks or declared.statistics):
        options["tasks"] = tasks
    models: dict[str, Any] = dict(case.models)
    if subject.streams:
        models = {name: state_of(module) for name, module in models.items()}
        base = state_of(base) if base is not None else None
    fused = fuse(subject.method(tuple(models)), models, base, **options)
    return dict(fused.state_dict()) if subject.gives_weights and isinstance(fused, nn.Module) else fused


def pool_of(subject: MethodSubject, case: Case) -> ModelPool:
    """A pool of a case's modules, with the base unless the method forbids one."""
    models = {name: PooledModel(name, content=module) for name, module in case.models.items()}
    base = subject.record.capabilities.base != "forbidden"
    return ModelPool(models, PooledModel("_base_", content=case.base) if base else None)


def odd_one(subject: MethodSubject) -> str:
    """Name of the model that is made not to fit: the last."""
    return NAMES[subject.count() - 1]


def pair(subject: MethodSubject, name: str = "mlp") -> tuple[Case, str]:
    """A case, and the name of the model that is made not to fit.

    Raises:
        Inapplicable: if there is nothing that it could differ from.
    """
    if subject.count() == 1 and subject.record.capabilities.base == "forbidden":
        raise Inapplicable("it takes one model and no base: nothing can differ")
    return subject.case(name), odd_one(subject)


def with_changes(case: Case, changes: Mapping[Any, Callable[[nn.Module], Any]]) -> Case:
    """A copy whose modules went through `changes`: model name, None for the base -> what is done to it."""

    def changed(name: str | None, module: nn.Module) -> nn.Module:
        twin = copy_of(module)
        if name in changes:
            changes[name](twin)
        return twin.requires_grad_(False)

    models = {name: changed(name, module) for name, module in case.models.items()}
    return Case(case.name, changed(None, case.base), models, case.tasks)


def renamed(subject: MethodSubject, case: Case) -> Case:
    """The same models under names that no other case has, in the order in which they are merged."""
    order = list(case.models) if subject.capabilities.ordered else sorted(case.models)
    names = {f"model{rank}": name for rank, name in enumerate(order)}
    tasks = {new: case.tasks[old].model_copy(update={"name": new}) for new, old in names.items()}
    return Case(case.name, case.base, {new: case.models[old] for new, old in names.items()}, tasks)


def task_head(size: int) -> Callable[[nn.Module], None]:
    """What gives a module a task head `classifier` with `size` outputs, which its forward does not use."""

    def attach(module: nn.Module) -> None:
        head = nn.Linear(1, size, bias=False)
        nn.init.ones_(head.weight)
        module.add_module("classifier", head)

    return attach


def more_words(module: nn.Module) -> None:
    """Give a language model one more word, as a tokenizer with added tokens does."""
    embed, head = module.get_submodule("embed"), module.get_submodule("head")
    assert isinstance(embed.weight, torch.Tensor)
    grown = nn.Parameter(torch.cat([embed.weight, embed.weight[:1]]))
    embed.weight, head.weight = grown, grown


def poison(model: str | None, tensor: str, value: float) -> Callable[..., torch.Tensor]:
    """What puts `value` into one entry of one tensor; the model None for the base."""

    def change(at: str | None, name: str, values: torch.Tensor) -> torch.Tensor:
        if at == model and name == tensor:
            values.view(-1)[3] = value
        return values

    return change
