"""Which tensors are merged: shell patterns over their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fusionbench_core.config.errors import explain


class Scope(BaseModel):
    """Names that are merged. Everything else is copied from the base (or the first model)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    include: tuple[str, ...] = Field(default=("*",), description="shell patterns of tensor names to merge")
    exclude: tuple[str, ...] = Field(
        default=(), description="shell patterns of tensor names to leave out; wins over include"
    )

    def __contains__(self, name: str) -> bool:
        return matches(name, self.include) and not matches(name, self.exclude)


def scope_of(patterns: Mapping[str, Sequence[str]] | None) -> Scope:
    """The scope that plain data describe, e.g. `{"exclude": ["embed.*"]}`; None merges all.

    Raises:
        ConfigError: listing everything that is wrong with them.
    """
    try:
        return Scope.model_validate(patterns or {})
    except ValidationError as error:
        raise explain(error, Scope, where="scope") from error


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether any shell pattern fits the whole name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
