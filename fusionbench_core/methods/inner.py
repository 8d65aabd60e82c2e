"""A method as a parameter of another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, SerializationInfo, ValidationInfo

from fusionbench_core.errors import ConfigError
from fusionbench_core.methods.build import build_method
from fusionbench_core.methods.method import TensorMethod
from fusionbench_core.records import MethodRecord
from fusionbench_core.registry import default_registry


def _resolve(value: Any, info: ValidationInfo) -> TensorMethod:
    if isinstance(value, TensorMethod):
        return value
    section = {"name": value} if isinstance(value, str) else value
    if not isinstance(section, Mapping):
        raise ValueError("give the name of a method, or a mapping of its name and parameters")
    context: Mapping[str, Any] = info.context or {}
    registry, file = context.get("registry") or default_registry(), context.get("file")
    where = f"{context.get('where', 'method')}.{info.field_name}"
    try:
        method, record = build_method(section, registry, file, where)
    except ConfigError as error:
        if context:
            raise
        raise ValueError(str(error)) from error
    if not isinstance(method, TensorMethod):
        raise ValueError(f"{record.full_name} does not merge tensor by tensor, so it cannot stand inside")
    return method


def _describe(method: TensorMethod, info: SerializationInfo) -> dict[str, Any]:
    return {"name": _full_name(method.record), **method.model_dump(mode=info.mode)}


def _full_name(record: MethodRecord) -> str:
    return next((each.full_name for each in default_registry().all("method") if each == record), record.name)


AnyTensorMethod = Annotated[TensorMethod, PlainValidator(_resolve), PlainSerializer(_describe)]
"""Type of a field that holds another tensor method.

In configs it is a registered name, or a mapping of `name` and parameters; in Python also the method itself.
It is looked up and validated with the method that holds it. What the inner one needs is not inherited: the
outer method derives its `capabilities`, `check`, `statistics` and `survey`.

>>> from fusionbench_core import AnyTensorMethod, TensorMethod
>>> class Twice(TensorMethod):
...     method: AnyTensorMethod
...     def merge(self, group):
...         base = group.base.clone()
...         return 2 * self.method.merge(group) - base
>>> Twice(method={"name": "task_arithmetic", "scaling_factor": 0.5}).model_dump()
{'method': {'name': 'merging/task_arithmetic', 'scaling_factor': 0.5}}
"""
