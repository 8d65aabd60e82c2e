"""From the names in a transformers checkpoint to the names in the live module.

They differ where a file was written by an older version (`encoder.layer.0.attention.attention.query`
is `layers.0.attention.q_proj` since transformers 5) or from another class of the same family.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from fusionbench_core import Checkpoint, IncompatibleModels


def module_names(stored: Iterable[str], module: Any) -> dict[str, str] | None:
    """Stored name -> name in `module.state_dict()`, by the rules of transformers' `from_pretrained`.

    Names that the module has no place for (another head, `position_ids` of old files) are left out.
    None if the rules would compute tensors, not only rename them.

    Args:
        stored: Names in the checkpoint.
        module: A transformers model, on any device.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    state = module.state_dict()
    rules = get_model_conversion_mapping(module)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    names: dict[str, str] = {}
    # Some rules depend on the order; this is the one they are written for.
    for name in sorted(stored, key=dot_natural_key):
        renamed, converted = rename_source_key(name, renamings, converters, module.base_model_prefix, state)
        if converted is not None and name not in state:
            return None
        if name in state:
            renamed = name
        if renamed in state:
            names[name] = renamed
    return names


def require_all(wanted: Collection[str], found: Checkpoint, model: str, fix: str) -> None:
    """Refuse a checkpoint that lacks tensors of the architecture.

    Raises:
        IncompatibleModels: naming some of what is missing.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        shown = ", ".join(missing[:6]) + (f", … ({len(missing)} in all)" if len(missing) > 6 else "")
        raise IncompatibleModels(
            f"the weights lack tensors of {model}", model=found.location, missing=shown, fix=fix
        )
