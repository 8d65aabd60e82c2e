"""From a name and parameters to a method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fusionbench_core.config.errors import explain
from fusionbench_core.errors import ConfigError
from fusionbench_core.methods.method import Method, ModelMethod, TensorMethod
from fusionbench_core.records import MethodRecord
from fusionbench_core.registry import Registry


def build_method(
    section: Mapping[str, Any], registry: Registry, file: Path | None = None, where: str = "method"
) -> tuple[Method, MethodRecord]:
    """The method that a section of `name` and parameters describes, and its record.

    Args:
        section: `name`, and the parameters beside it.
        registry: Where the name is looked up, and the names of methods within it.
        file: The config file, for errors.
        where: Dotted key of the section, for errors.

    Raises:
        ConfigError: listing everything that is wrong with the parameters.
        UnknownName: if there is no such method.
    """
    parameters = dict(section)
    name = parameters.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"the `{where}` section has no `name`", file=file, fix="add `name: simple_average` or another"
        )
    record = registry.find("method", name)
    cls = registry.resolve(record)
    if not (isinstance(cls, type) and issubclass(cls, (TensorMethod, ModelMethod))):
        raise ConfigError(
            f"{record.full_name} is no fusion method: {record.target} is a {type(cls).__name__}"
        )
    context = {"registry": registry, "file": file, "where": where}
    try:
        return cls.model_validate(parameters, context=context), record
    except ValidationError as error:
        raise explain(error, cls, where=where, file=file) from error
