"""A checkpoint under the names of the live module, whatever class it was saved from.

The names on disk differ from the module's where the file was saved from a model with another head
(`bert.` or `model.` before every name, or missing), by an older version, or in a layout that transformers
regroups (the experts of Mixtral). transformers itself knows the rules; they are applied here to a lazy view.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fb_nlp_tasks.sources.architecture import Architecture
from fb_nlp_tasks.sources.recent import RecentTensors
from fusionbench_core import Checkpoint, IncompatibleModels, TensorInfo


@dataclass
class Regrouped:
    """Tensors that are made of others, e.g. one of all experts' matrices."""

    converter: Any
    first: str
    parts: dict[str, list[str]] = field(default_factory=dict)
    """Pattern -> names on disk, in the order that the converter wants."""

    def compute(self, inner: Checkpoint, model: Any) -> dict[str, Tensor]:
        """Module name -> tensor, all those that come out of this group."""
        converter = copy.deepcopy(self.converter)
        for pattern, names in self.parts.items():
            for name in names:
                converter.add_tensor(self.first, name, pattern, partial(inner.tensor, name))
        made = converter.convert(self.first, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


@dataclass(frozen=True)
class Names:
    """How a checkpoint's names map to an architecture's.

    Attributes:
        direct: Module name -> name on disk.
        regrouped: Module name -> group that it is made of.
        dropped: Names on disk that the architecture has no place for, e.g. another head.
    """

    direct: Mapping[str, str]
    regrouped: Mapping[str, Regrouped]
    dropped: tuple[str, ...]

    def __contains__(self, name: str) -> bool:
        return name in self.direct or name in self.regrouped


def match_names(inner: Checkpoint, architecture: Architecture) -> Names:
    """Apply the renaming rules of transformers' `from_pretrained` to the names of `inner`."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    model = architecture.meta
    state = model.state_dict()
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    direct: dict[str, str] = {}
    groups: dict[str, Regrouped] = {}
    dropped = []
    # Some rules depend on the order; this is the one that they are written for.
    for name in sorted(inner.keys(), key=dot_natural_key):
        prefix = model.base_model_prefix
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if renamed not in state and name in state:
            renamed, pattern = name, None
        if renamed not in state:
            dropped.append(name)
        elif pattern is None:
            direct[renamed] = name
        else:
            group = groups.setdefault(renamed, Regrouped(by_pattern[pattern], renamed))
            group.parts.setdefault(pattern, []).append(name)
    regrouped = {}
    for first, group in groups.items():
        targets = group.converter.target_patterns
        for target in targets:
            regrouped[first.replace(targets[0], target)] = group
    return Names(direct, regrouped, tuple(dropped))


class AlignedCheckpoint(Checkpoint):
    """View of `inner` under the names of a module, with the ties of that module.

    Args:
        inner: What is on disk.
        names: How its names map to the module's.
        architecture: Gives shapes of regrouped tensors.
        aliases: Tied name -> the name whose tensor it shares.
        model: Name of the module's class.
    """

    def __init__(
        self,
        inner: Checkpoint,
        names: Names,
        architecture: Architecture,
        aliases: Mapping[str, str],
        model: str,
    ) -> None:
        self._inner = inner
        self.names = names
        self.model = model
        self._architecture = architecture
        self._tied = dict(aliases)
        of_disk = {on_disk: name for name, on_disk in names.direct.items() if name not in aliases}
        in_file_order = [of_disk[on_disk] for on_disk in inner if on_disk in of_disk]
        self._keys = (*in_file_order, *names.regrouped, *self._tied)
        self._recent = RecentTensors(self._regroup, size=2)
        self.dropped = names.dropped
        self.location = inner.location

    def keys(self) -> tuple[str, ...]:
        return self._keys

    def info(self, key: str) -> TensorInfo:
        key = self._tied.get(key, key)
        if key in self.names.direct:
            return self._inner.info(self.names.direct[key])
        parts = self.names.regrouped[key].parts
        dtype = self._inner.info(next(iter(parts.values()))[0]).dtype
        return TensorInfo(tuple(self._architecture.state[key].shape), dtype)

    def tensor(self, key: str) -> Tensor:
        key = self._tied.get(key, key)
        if key in self.names.direct:
            return self._inner.tensor(self.names.direct[key])
        return self._recent[key]

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        key = self._tied.get(key, key)
        if key in self.names.direct:
            return self._inner.chunk(self.names.direct[key], start, stop)
        return self._recent[key].reshape(-1)[start:stop]

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._tied

    def identity(self) -> str:
        return f"{self._inner.identity()}:{self.model}:{len(self._keys)}"

    def _regroup(self, key: str) -> Tensor:
        return self.names.regrouped[key].compute(self._inner, self._architecture.meta)[key]


def align(
    inner: Checkpoint, architecture: Architecture, *, partial: bool = False
) -> tuple[AlignedCheckpoint, Architecture]:
    """View `inner` under the names of an architecture, which is fitted to it where it leaves a choice.

    A pooling layer that the file lacks is left out, as nothing could fill it; weights that the config
    ties but the file holds twice with different values are kept apart, as `from_pretrained` does.

    Args:
        inner: What is on disk.
        architecture: What config.json says.
        partial: Whether tensors may be missing.

    Returns:
        The view, and the architecture whose `skeleton()` has the same names.

    Raises:
        IncompatibleModels: naming the tensors of the architecture that the file lacks.
    """
    names = match_names(inner, architecture)
    aliases = _aliases(inner, names, architecture)
    if aliases is None:
        architecture = replace(architecture, untied=True)
        names = match_names(inner, architecture)
        aliases = _aliases(inner, names, architecture) or {}
    missing = [name for name in architecture.state if name not in names and name not in aliases]
    if any(".pooler." in f".{name}" for name in missing):
        smaller = architecture.without_pooler()
        if smaller is not None:
            return align(inner, smaller, partial=partial)
    if missing and not partial:
        raise _lacks(inner, names, architecture, missing)
    model = type(architecture.meta).__name__
    return AlignedCheckpoint(inner, names, architecture, aliases, model), architecture


def _aliases(inner: Checkpoint, names: Names, architecture: Architecture) -> dict[str, str] | None:
    """Tied name -> kept name; None if the file contradicts a tie."""
    aliases = {}
    for group in architecture.ties():
        present = [name for name in group if name in names]
        if not present:
            continue
        kept = present[0]
        if not all(_same(inner, names, kept, other) for other in present[1:]):
            return None
        aliases.update({name: kept for name in group if name != kept})
    return aliases


def _same(inner: Checkpoint, names: Names, one: str, other: str) -> bool:
    first, second = names.direct.get(one), names.direct.get(other)
    if first is None or second is None:
        return False
    if inner.aliases.get(first, first) == inner.aliases.get(second, second):
        return True
    if inner.info(first) != inner.info(second):
        return False
    return torch.equal(inner.tensor(first), inner.tensor(second))


def _lacks(
    inner: Checkpoint, names: Names, architecture: Architecture, missing: list[str]
) -> IncompatibleModels:
    model = type(architecture.meta).__name__
    shown = ", ".join(missing[:6]) + (f", … ({len(missing)} in all)" if len(missing) > 6 else "")
    fix = "use the source that fits how the model was saved (see `architectures` in its config.json)"
    if "SequenceClassification" in architecture.auto:
        fix = (
            "a pre-trained model has no classifier: use source text_encoder for base and experts,\n"
            "and give each task its expert's head with `head: expert` and `head_from`"
        )
    return IncompatibleModels(
        f"the weights lack tensors of {model}",
        model=inner.location,
        missing=shown,
        unused=", ".join(names.dropped[:6]) or None,
        fix=fix,
    )
