"""A method is its validated parameters: construction, round trips, copies, equality."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import pickle
from collections.abc import Mapping
from typing import Any

from fusionbench_core.methods import Method, ModelMethod, TensorMethod
from fusionbench_core.records import MethodRecord
from fusionbench_core.testing import fresh
from fusionbench_core.testing.check import Violation, check, unexpected
from fusionbench_core.testing.method_checks.parameters import (
    HOSTILE,
    built,
    models,
    values,
    variants,
)
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.subjects import subject_of

_LONGEST_REPR = 1000


@check("FM-101")
def implements_its_record(subject: MethodSubject) -> None:
    """The class implements the record that names it.

    What `fb list`, the plan and the engine believe of a method is its record. A class with another one does
    something else than it was chosen for.

    Fix: subclass TensorMethod or ModelMethod, and decorate the class with `@implements(RECORD)`.
    """
    cls, record = subject.cls, subject.record
    if not (isinstance(cls, type) and issubclass(cls, (TensorMethod, ModelMethod))):
        raise Violation(f"{record.target} is neither a TensorMethod nor a ModelMethod", measured=cls)
    if inspect.isabstract(cls):
        raise Violation(f"{record.target} lacks methods", measured=sorted(cls.__abstractmethods__))
    own = getattr(cls, "record", None)
    if own is None:
        raise Violation(f"{cls.__name__} says nowhere which record it implements", bound=record.name)
    if own.name != record.name:
        raise Violation(
            f"{cls.__name__} implements another record than the one that names it",
            measured=own.name,
            bound=record.name,
        )
    if own != record:
        differing = [name for name in vars(record) if name != "origin" and _differ(own, record, name)]
        raise Violation(
            f"the record in {cls.__name__} is not the declared one: {', '.join(differing)}",
            measured=[getattr(own, name) for name in differing],
            bound=[getattr(record, name) for name in differing],
        )


@check("FM-102", requires=("FM-101",))
def built_with_defaults(subject: MethodSubject) -> None:
    """It can be built without parameters, and with those of its example.

    `fb run method=NAME` is how everyone begins. Where no default makes sense, `example` says what does.

    Fix: give every field a default that its own range allows, or give required ones in `example`.
    """
    cls = subject.cls
    needed = [name for name, field in cls.model_fields.items() if field.is_required()]
    missing = [name for name in needed if name not in subject.example(models(subject))]
    if missing:
        raise Violation(
            f"{', '.join(missing)} must be given, and the example does not",
            reproduce=f"{cls.__name__}()",
        )
    for parameters in [subject.example(models(subject))] + [{}] * (not needed):
        try:
            built(subject, parameters)
        except Exception as error:
            raise Violation(
                f"it cannot be built: {unexpected(error)}", reproduce=f"{cls.__name__}(**{parameters!r})"
            ) from error


@check("FM-103", requires=("FM-102",))
def constructor_only_stores(subject: MethodSubject) -> None:
    """Building it stores parameters, frozen, and does nothing else.

    One object serves several runs, threads and processes; what is not a parameter is in no config, no hash
    and no artefact.

    Fix: keep the frozen config of Method, compute derived values in `merge` or `fuse`, and have no private
    attributes.
    """
    for parameters, method in variants(subject):
        reproduce = f"vars({subject.cls.__name__}(**{parameters!r}))"
        fields = set(type(method).model_fields)
        extra = (set(vars(method)) | set(method.__pydantic_private__ or ())) - fields
        if extra:
            raise Violation(
                f"building it sets what is no parameter: {', '.join(sorted(extra))}", reproduce=reproduce
            )
        for name, value in values(method).items():
            try:
                setattr(method, name, value)
            except Exception:
                continue
            raise Violation(
                f"its parameters can be changed: {name}",
                measured="not frozen",
                bound="frozen",
                reproduce=f"{subject.cls.__name__}().{name} = {value!r}",
            )


@check("FM-104", requires=("FM-102",))
def config_round_trip(subject: MethodSubject) -> None:
    """Parameters survive the way through a dict and through JSON.

    A run is repeated from its config, and an artefact says what made it. What is lost or changed on the way
    makes another model.

    Fix: use plain types, no aliases and no `exclude`; let validators give what they accept unchanged.
    """
    cls = subject.cls
    for parameters, method in variants(subject):
        ways = {
            "a dict": lambda method=method: cls.model_validate(method.model_dump()),
            "JSON": lambda method=method: cls.model_validate(
                json.loads(json.dumps(method.model_dump(mode="json"), allow_nan=False))
            ),
            "JSON text": lambda method=method: cls.model_validate_json(method.model_dump_json()),
        }
        for way, travel in ways.items():
            reproduce = f"{cls.__name__}.model_validate({cls.__name__}(**{parameters!r}).model_dump())"
            try:
                again = travel()
            except Exception as error:
                raise Violation(
                    f"it does not come back from {way}: {unexpected(error)}", reproduce=reproduce
                ) from error
            if values(again) != values(method):
                raise Violation(
                    f"it comes back changed from {way}",
                    measured=values(again),
                    bound=values(method),
                    reproduce=reproduce,
                )


@check("FM-106", requires=("FM-102",))
def unknown_refused(subject: MethodSubject) -> None:
    """An unknown parameter is refused, with the one that was probably meant.

    A mistyped parameter that is swallowed leaves the default in force: the run looks fine and means nothing.

    Fix: keep `extra="forbid"` of Method, and take no `**kwargs`.
    """
    from pydantic import ValidationError

    from fusionbench_core.config.errors import explain

    cls, example = subject.cls, subject.example(models(subject))
    misspelt = {f"{name}x": name for name in cls.model_fields if f"{name}x" not in cls.model_fields}
    for wrong, meant in {"no_such_parameter": "", **misspelt}.items():
        reproduce = f"{cls.__name__}({wrong}=1)"
        try:
            cls.model_validate({**example, wrong: 1})
        except ValidationError as error:
            text = str(explain(error, cls, where="method"))
            if wrong not in text or (repr(meant) not in text and meant):
                raise Violation(
                    f"the error for an unknown parameter does not say which is meant: {text}",
                    bound=meant or wrong,
                    reproduce=reproduce,
                ) from error
        else:
            raise Violation(f"it takes a parameter that it does not have: {wrong}", reproduce=reproduce)


@check("FM-107", requires=("FM-102",))
def nonsense_refused(subject: MethodSubject) -> None:
    """Values out of range and of the wrong type are refused when it is built, before a model is read.

    A run that fails, or gives NaN, after an hour of reading could have said so at once.

    Fix: declare ranges and types: `Field(gt=0, le=1)`, `Literal[…]`; what depends on the number of models
    belongs in `check`.
    """
    from pydantic import ValidationError

    cls, names = subject.cls, models(subject)
    example = subject.example(names)
    for field in cls.model_fields:
        for value in HOSTILE:
            reproduce = f"{cls.__name__}({field}={value!r})"
            try:
                method = built(subject, {**example, field: value})
            except ValidationError:
                continue
            except Exception as error:
                raise Violation(
                    f"{field}={value!r} is refused by a {unexpected(error)}",
                    bound="a ValidationError, which pydantic makes of a ValueError",
                    reproduce=reproduce,
                ) from error
            if _refused(method, names):
                continue
            kept = getattr(method, field)
            if kept == getattr(built(subject, example), field):
                continue
            try:
                subject.fuse(subject.case(), parameters={field: value})
            except Exception as error:
                raise Violation(
                    f"{field}={value!r} is accepted when it is built, and fails when it fuses: "
                    f"{unexpected(error)}",
                    measured=repr(kept),
                    bound="refused by its field or its `check`",
                    reproduce=reproduce,
                ) from error


@check("FM-108", level="full", requires=("FM-102",))
def usable_elsewhere(subject: MethodSubject) -> None:
    """It can be copied, pickled, and used in a process that was just started.

    Sweeps and multi-GPU runs hand methods to other processes.

    Fix: define the class at the top of its module, keep only plain parameters, and set nothing up in module
    globals at run time.
    """
    method = subject.method(models(subject))
    ways = {
        "copied": lambda: copy.deepcopy(method),
        "pickled": lambda: pickle.loads(pickle.dumps(method)),  # noqa: S301 - our own bytes
    }
    for way, travel in ways.items():
        try:
            again = travel()
        except Exception as error:
            raise Violation(f"it cannot be {way}: {unexpected(error)}") from error
        if values(again) != values(method):
            raise Violation(f"it changes when it is {way}", measured=values(again), bound=values(method))
    here = sorted(subject.fused())
    try:
        there = fresh.run(fused_there, subject.record, method)
    except Exception as error:
        raise Violation(f"it fails in a process that was just started: {unexpected(error)}") from error
    if there != here:
        raise Violation("it gives other names in a process that was just started", measured=there, bound=here)


@check("FM-109", requires=("FM-102", "FM-104"))
def repr_round_trip(subject: MethodSubject) -> None:
    """Its `repr` is short, and builds it again.

    It is what notebooks, logs and failing tests show.

    Fix: keep the `repr` of Method and plain types of parameters, and hide no field with `repr=False`.
    """
    cls = subject.cls
    for parameters, method in variants(subject):
        text, reproduce = repr(method), f"repr({cls.__name__}(**{parameters!r}))"
        if len(text) > _LONGEST_REPR or "\n" in text:
            raise Violation(
                f"its repr is long: {text[:80]}…",
                measured=f"{len(text)} characters",
                bound=f"{_LONGEST_REPR}, on one line",
                reproduce=reproduce,
            )
        try:
            again = cls.model_validate(
                _arguments(ast.parse(text, mode="eval").body, cls.__name__, _inner(method))
            )
        except Exception as error:
            raise Violation(
                f"its repr builds nothing: {text}", measured=unexpected(error), reproduce=reproduce
            ) from error
        if values(again) != values(method):
            raise Violation(
                "its repr builds another method",
                measured=values(again),
                bound=values(method),
                reproduce=reproduce,
            )


@check("FM-112", requires=("FM-102",))
def equal_by_value(subject: MethodSubject) -> None:
    """Equal parameters make equal methods with equal hashes; others make others.

    Results are kept and found again under the method that made them.

    Fix: define neither `__eq__` nor `__hash__`: Method has both.
    """
    cls, known = subject.cls, []
    for parameters, method in variants(subject):
        twin, reproduce = built(subject, parameters), f"{cls.__name__}(**{parameters!r})"
        if method != twin:
            raise Violation("two methods with the same parameters differ", reproduce=reproduce)
        try:
            same = hash(method) == hash(twin)
        except TypeError as error:
            raise Violation(f"it has no hash: {error}", reproduce=f"hash({reproduce})") from error
        if not same:
            raise Violation("equal methods have two hashes", reproduce=f"hash({reproduce})")
        for other in known:
            if other == method:
                raise Violation(
                    "methods with other parameters are equal",
                    measured=values(method),
                    bound=values(other),
                    reproduce=reproduce,
                )
        known.append(method)


def fused_there(record: MethodRecord, method: Method) -> list[str]:
    """Names of what a method that came from another process gives."""
    subject = subject_of(record)
    assert isinstance(subject, MethodSubject)
    return sorted(subject.fuse(subject.case(), parameters=values(method)))


def _differ(one: MethodRecord, other: MethodRecord, name: str) -> bool:
    return getattr(one, name) != getattr(other, name)


def _refused(method: Method, names: tuple[str, ...]) -> bool:
    try:
        method.check(names)
    except Exception:
        return True
    return False


def _arguments(node: ast.expr, name: str, inner: Mapping[str, type[Method]]) -> dict[str, Any]:
    """Keyword arguments of a call of `name`; calls in them, of nested models, likewise."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != name:
        raise ValueError(f"it is no call of {name}")
    if node.args:
        raise ValueError("it has positional arguments")
    return {each.arg or "": _value(each.value, inner) for each in node.keywords}


def _value(node: ast.expr, inner: Mapping[str, type[Method]]) -> Any:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return ast.literal_eval(node)
    if len(node.args) == 1:
        # A path, or a dict with a class of its own, is built from one value.
        return _value(node.args[0], inner)
    arguments = _arguments(node, node.func.id, inner)
    return inner[node.func.id](**arguments) if node.func.id in inner else arguments


def _inner(method: Method) -> dict[str, type[Method]]:
    """Class name -> class, of the methods that are parameters of this one."""
    found: dict[str, type[Method]] = {}
    for name in type(method).model_fields:
        value = getattr(method, name)
        if isinstance(value, Method):
            found |= {type(value).__name__: type(value), **_inner(value)}
    return found
