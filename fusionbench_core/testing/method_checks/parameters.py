"""A method's parameters, changed one at a time to other valid values, or to values that make no sense."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

from fusionbench_core.methods import Method
from fusionbench_core.testing.method_subject import MethodSubject

HOSTILE: tuple[Any, ...] = (-1, float("nan"), float("inf"), "nonsense", (), {})
"""Values that hardly any parameter takes; none of them makes a method train for longer."""


def variants(subject: MethodSubject) -> Iterator[tuple[dict[str, Any], Method]]:
    """`(parameters, method)`: its example, then with each parameter changed to other valid values."""
    names = models(subject)
    given = subject.example(names)
    yield given, built(subject, given)
    for field, info in subject.cls.model_fields.items():
        seen = [getattr(built(subject, given), field)]
        for value in _candidates(info.annotation, seen[0], names):
            changed = {**given, field: value}
            method = accepted(subject, changed)
            if method is not None and getattr(method, field) not in seen:
                seen.append(getattr(method, field))
                yield changed, method


def models(subject: MethodSubject) -> tuple[str, ...]:
    """Names of as many models as it takes, three if that will do."""
    from fusionbench_core.testing.zoo import NAMES

    return NAMES[: subject.count()]


def accepted(subject: MethodSubject, parameters: dict[str, Any]) -> Method | None:
    """The method with these parameters; None if they are refused, however that is done."""
    try:
        return built(subject, parameters)
    except Exception:
        return None


def built(subject: MethodSubject, parameters: dict[str, Any]) -> Method:
    """The method with parameters that it must take."""
    return subject.cls.model_validate(parameters)


def values(method: Method) -> dict[str, Any]:
    """Name -> value of every parameter, as the object holds them."""
    return {name: getattr(method, name) for name in type(method).model_fields}


def _candidates(annotation: Any, value: Any, names: Sequence[str]) -> Iterator[Any]:
    yield from _choices(annotation)
    if isinstance(value, bool):
        yield not value
        return
    numbers = (0.5, 1, 2, 3, 0.25)
    # One number; one each; one by name: whatever of these the parameter takes.
    yield from numbers[:2] if not isinstance(value, (int, float)) else _near(value)
    for number in numbers:
        yield (number,) * len(names)
        yield dict.fromkeys(names, number)


def _near(value: float) -> Iterator[float]:
    yield from (value / 2, value * 2, value + 1, value - 1) if value else (1, 0.5)


def _choices(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    for argument in get_args(annotation):
        yield from _choices(argument)
