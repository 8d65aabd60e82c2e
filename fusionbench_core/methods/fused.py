"""What a model method gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from fusionbench_core.artefact.adapter import Adapter


@dataclass(frozen=True, kw_only=True)
class Fused:
    """The result of a fusion: weights of the same architecture, a module of a new one, or an adapter.

    Make one with :meth:`weights`, :meth:`of_module`, :meth:`of_checkpoint` or :meth:`of_adapter`.
    """

    state: Mapping[str, Tensor] | None = None
    module: nn.Module | None = None
    builder: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] | None = None
    assets: Mapping[str, str] = field(default_factory=dict)
    adapter: Adapter | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def weights(cls, state: Mapping[str, Tensor], *, details: Mapping[str, Any] | None = None) -> Fused:
        """A state dict for the pool's architecture.

        Args:
            state: Name -> tensor. Names that are absent are taken from the base.
            details: JSON-able facts for the report, e.g. learned coefficients and loss curves.
        """
        return cls(state=dict(state), details=details or {})

    @classmethod
    def of_module(
        cls,
        module: nn.Module,
        *,
        builder: str,
        arguments: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Fused:
        """A module of a new architecture, with what is needed to rebuild it in a fresh process.

        Args:
            module: The live module.
            builder: Name of the registered builder that makes the same module again, empty.
            arguments: JSON-able arguments of the builder.
            tensors: What the artefact stores; default the module's whole state dict. An ensemble that
                refers to its members by name stores none of theirs.
            details: JSON-able facts for the report.
        """
        return cls(
            module=module, builder=builder, arguments=arguments or {}, tensors=tensors, details=details or {}
        )

    @classmethod
    def of_checkpoint(
        cls,
        module: nn.Module,
        *,
        assets: Mapping[str, str],
        tensors: Mapping[str, Tensor] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Fused:
        """A module of another architecture that the pool's source can read, given another config.

        The artefact is a plain checkpoint: it needs no builder, and loads wherever its format does.

        Args:
            module: The live module.
            assets: File name -> text, in place of the source's asset of that name, e.g. `config.json`.
            tensors: What the artefact stores, in any layout that the source reads; default the module's
                state dict.
            details: JSON-able facts for the report.
        """
        return cls(module=module, tensors=tensors, assets=dict(assets), details=details or {})

    @classmethod
    def of_adapter(
        cls, adapter: Adapter, base: nn.Module, *, details: Mapping[str, Any] | None = None
    ) -> Fused:
        """A change of the base. The artefact holds it alone, as PEFT loads it, and refers to the base.

        Args:
            adapter: The change.
            base: A live module of the base, `job.pool.module()`; it is changed.
            details: JSON-able facts for the report.
        """
        adapter.add_to(base)
        return cls(module=base, adapter=adapter, details=details or {})
