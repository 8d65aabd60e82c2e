"""From the names in a transformers checkpoint to the names in the live module.

They differ where a file was written by an older version (`encoder.layer.0.attention.attention.query`
is `layers.0.attention.q_proj` since transformers 5) or from another class of the same family.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from fusionbench_core import Checkpoint, IncompatibleModels, cache_dir


@dataclass(frozen=True)
class Names:
    """How the names of a checkpoint become those of a module.

    Attributes:
        model: Name of the module's class.
        wanted: Names in the module's state dict.
        renamed: Stored name -> name in the module; names that it has no place for (another head,
            `position_ids` of old files) are left out. None if the rules would compute tensors.
    """

    model: str
    wanted: tuple[str, ...]
    renamed: dict[str, str] | None


def remembered(key: str, find: Callable[[], Names]) -> Names:
    """What `find` gave for this key before, kept in the user's cache between runs.

    Finding names needs the model's class, and importing that takes seconds.
    """
    try:
        note = cache_dir("names") / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"
    except OSError:
        return find()
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return Names(content["model"], tuple(content["wanted"]), content["renamed"])
    except (OSError, ValueError, KeyError, TypeError):
        names = find()
    try:
        partial = note.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(asdict(names)), encoding="utf-8")
        os.replace(partial, note)
    except OSError:
        # A full or read-only cache costs time, not the result.
        return names
    return names


def module_names(stored: Iterable[str], module: Any) -> Names:
    """Match stored names with `module.state_dict()` by the rules of transformers' `from_pretrained`.

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
    model, wanted = type(module).__name__, tuple(state)
    rules = get_model_conversion_mapping(module)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    names: dict[str, str] = {}
    # Some rules depend on the order; this is the one they are written for.
    for name in sorted(stored, key=dot_natural_key):
        renamed, converted = rename_source_key(name, renamings, converters, module.base_model_prefix, state)
        if converted is not None and name not in state:
            return Names(model, wanted, None)
        if name in state:
            renamed = name
        if renamed in state:
            names[name] = renamed
    return Names(model, wanted, names)


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
