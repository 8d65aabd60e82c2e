"""Validation errors in the words of the user: file, key, value, reason, range, suggestion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from fusionbench_core.errors import ConfigError
from fusionbench_core.suggest import did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "a multiple of"}


def explain(
    error: ValidationError,
    model: type[BaseModel],
    where: str = "",
    file: Path | str | None = None,
    *,
    fix: str | None = None,
) -> ConfigError:
    """One ConfigError that lists every problem that pydantic found.

    Args:
        error: What `model.model_validate(...)` raised.
        model: The model, for ranges and for suggestions of its field names.
        where: Dotted key of the section that was validated, e.g. `method`.
        file: The config file, where there is one.
        fix: What to do, where no suggestion says it.
    """
    problems: dict[str, str] = {}
    for detail in _relevant(error.errors(include_url=False)):
        key, text = _problem(detail, model, where)
        problems[key] = f"{problems[key]}; {text}" if key in problems else text
    count = len(problems)
    subject = where or "the config"
    return ConfigError(
        f"{subject} is not valid: {count} problem{'s' if count > 1 else ''}",
        fix=fix,
        **{"file": file, **problems},  # type: ignore[arg-type]
    )


def _relevant(details: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """All problems, but not that a number out of range is no list either: a union's other branches."""
    for detail in details:
        rivals = [other for other in details if _keys(other["loc"]) == _keys(detail["loc"])]
        if not _of_another_kind(detail) or all(map(_of_another_kind, rivals)):
            yield detail


def _of_another_kind(detail: Mapping[str, Any]) -> bool:
    return detail["type"].endswith("_type") or detail["type"] == "none_required"


def _keys(location: Sequence[Any]) -> list[Any]:
    return [part for part in location if not _is_tag(part)]


def _problem(detail: Mapping[str, Any], model: type[BaseModel], where: str) -> tuple[str, str]:
    location = tuple(detail["loc"])
    owner = _owner(model, location)
    # pydantic adds the tags of unions to the location; a user knows only the keys.
    path = [str(part) for part in location if not _is_tag(part)]
    key = ".".join([*([where] if where else []), *path]) or "(whole section)"
    kind = detail["type"]
    if kind == "extra_forbidden":
        names = _field_names(owner)
        hint = did_you_mean(str(location[-1]), names) or (f"known keys: {', '.join(names)}" if names else "")
        return key, f"unknown key{'; ' + hint if hint else ''}"
    allowed = _allowed(owner, location)
    if kind == "missing":
        return key, f"is required{f' ({allowed})' if allowed else ''}"
    if kind in ("tuple_type", "list_type"):
        detail = {**detail, "msg": f"a list is wanted, e.g. [{detail.get('input')}]"}
    reason = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    reason = reason[:1].lower() + reason[1:]
    value = repr(detail.get("input"))
    if len(value) > 60:
        value = value[:57] + "..."
    return key, f"{value}: {reason}{f' (allowed: {allowed})' if allowed else ''}"


def _is_tag(part: Any) -> bool:
    names = {"str", "int", "float", "bool", "none", "dict"}
    return isinstance(part, str) and ("[" in part or part.startswith("constrained-") or part in names)


def _owner(model: type[BaseModel] | None, location: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model that holds the last key of a location; None where the path leaves the models."""
    parts = iter(_keys(location)[:-1])
    for part in parts:
        field = model.model_fields.get(str(part)) if model is not None else None
        if field is None:
            if isinstance(part, int):
                continue
            return None
        model = next(iter(_models(field.annotation)), None)
        if get_origin(field.annotation) in (dict, Mapping):
            next(parts, None)  # the entry's own name
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _field_names(model: type[BaseModel] | None) -> list[str]:
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _allowed(model: type[BaseModel] | None, location: tuple[Any, ...]) -> str:
    keys = [str(part) for part in location if not _is_tag(part)]
    field = model.model_fields.get(keys[-1]) if model is not None and keys else None
    return field_range(field) if field is not None else ""


def field_range(field: Any) -> str:
    """The declared range of a pydantic field, e.g. `> 0, <= 1`; empty if it has none.

    Of a union, the range that its branches share: a fraction, or one for each model.
    """
    ranges = {_range(field.metadata), *_ranges(field.annotation)} - {""}
    return ranges.pop() if len(ranges) == 1 else ""


def _ranges(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Annotated:
        for extra in annotation.__metadata__:
            yield _range(getattr(extra, "metadata", [extra]))
    for argument in get_args(annotation):
        yield from _ranges(argument)


def _range(metadata: Iterable[Any]) -> str:
    parts = []
    for constraint in metadata:
        for name, sign in _BOUNDS.items():
            bound = getattr(constraint, name, None)
            if bound is not None:
                parts.append(f"{sign} {bound}")
    return ", ".join(parts)
