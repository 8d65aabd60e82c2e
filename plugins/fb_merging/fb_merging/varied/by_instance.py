"""A survey of a method whose parameters differ: one of each set of parameters, of its own tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fusionbench_core import Survey, TensorGroup, TensorMethod


class Seen(dict[TensorMethod, Any]):
    """Method -> what its survey saw; added up method by method."""

    def __add__(self, other: Mapping[TensorMethod, Any]) -> Seen:
        total = Seen(self)
        for method, seen in other.items():
            total[method] = total[method] + seen if method in total else seen
        return total


@dataclass(frozen=True)
class SurveyByInstance(Survey):
    """The surveys of all methods that merge some tensor. Its result is a mapping: method -> result."""

    part: Callable[[TensorGroup], tuple[TensorMethod, TensorGroup]]
    states: Mapping[TensorMethod, Any] = field(default_factory=dict)

    def observe(self, group: TensorGroup) -> Seen:
        method, group = self.part(group)
        state = self.states[method] if method in self.states else method.survey()
        return Seen([(method, state.observe(group))] if isinstance(state, Survey) else [])

    def advance(self, total: Seen | None) -> Any:
        states = dict(self.states)
        for method, seen in (total or {}).items():
            state = states.get(method) or method.survey()
            states[method] = state.advance(seen) if isinstance(state, Survey) else state
        unfinished = any(isinstance(state, Survey) for state in states.values())
        return SurveyByInstance(self.part, states) if unfinished else states
