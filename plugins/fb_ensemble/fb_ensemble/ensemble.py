"""What all ensemble methods do: refer to the pool's models, store none of their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from fb_ensemble.members import InMemory, SwappedMembers, bytes_of_members
from fusionbench_core import Fused, Members, Method, ModelMethod, ModelPool


class MemberMethod(ModelMethod):
    """Runs the pool's models, all in memory or one at a time."""

    in_memory: InMemory = "auto"

    def memory(self, pool: ModelPool) -> int:
        return bytes_of_members(pool, self.in_memory)


def order_of(method: Method, pool: ModelPool) -> Sequence[str]:
    """Names of the pool's models, in the config's order only where that has a meaning."""
    return pool.names if method.capabilities.ordered else sorted(pool.names)


def referring(
    members: Members,
    build: Callable[[Mapping[str, Any], Members], nn.Module],
    builder: str,
    details: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Fused:
    """What `build` makes of models that the artefact refers to by name.

    Args:
        members: The models.
        build: Makes the module of its arguments and the members.
        builder: Name of the registered builder that does the same when the artefact is loaded.
        details: Further facts for the report.
        arguments: JSON-able arguments of `build`.
    """
    arguments = {"members": list(members.names), **arguments}
    return Fused.of_module(
        build(arguments, members),
        builder=f"ensemble/{builder}",
        arguments=arguments,
        tensors={},
        details={"parameters": _parameters(members), **(details or {})},
    )


def _parameters(members: Members) -> int:
    """Of all models, also where they take turns in memory."""
    live = sum(parameter.numel() for parameter in members.parameters())
    return live * len(members.names) if isinstance(members, SwappedMembers) else live
