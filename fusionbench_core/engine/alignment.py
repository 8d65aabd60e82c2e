"""Which tensors of the models belong together; every mismatch is found before a weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

import torch

from fusionbench_core.checkpoints import Checkpoint, TensorInfo
from fusionbench_core.engine.step import Action
from fusionbench_core.errors import IncompatibleModels
from fusionbench_core.pools.scope import Scope, matches

_SHOWN = 12


@dataclass(frozen=True)
class Alignment:
    """Output tensors in file order: (name, action, info, source), tied names, and remarks."""

    steps: tuple[tuple[str, Action, TensorInfo, str | None], ...]
    aliases: Mapping[str, str]
    notes: tuple[str, ...]


def align(
    models: Mapping[str, Checkpoint], base: Checkpoint | None, scope: Scope, heads: tuple[str, ...] = ()
) -> Alignment:
    """Match tensors by name and shape.

    The base (or the first model) says which tensors there are. Tensors out of scope are copied from
    it; heads are never merged and need not agree.

    Raises:
        IncompatibleModels: listing all missing, extra and ill-shaped tensors of all models at once.
    """
    template_name, template = (None, base) if base is not None else next(iter(models.items()))
    everyone = {**({"the base": base} if base is not None else {}), **models}
    aliases = _common_aliases(template, everyone.values())
    steps: list[tuple[str, Action, TensorInfo, str | None]] = []
    problems: list[str] = []
    left_out = 0
    for name in template:
        if name in aliases:
            continue
        info = template.info(name)
        if name not in scope or matches(name, heads):
            left_out += 1
            steps.append((name, "copy", info, template_name))
            continue
        found = _mismatches(name, info, models)
        problems += found
        if not found:
            dtype = info.dtype if base is not None else _promote(m.info(name).dtype for m in models.values())
            floating = all(c.info(name).is_floating for c in everyone.values())
            steps.append((name, "merge" if floating else "equal", TensorInfo(info.shape, dtype), None))
    problems += [
        f"{name}: not in {'the base' if base is not None else template_name}, but in {model}"
        for model, checkpoint in models.items()
        for name in checkpoint
        if name not in template and name in scope and not matches(name, heads)
    ]
    if problems:
        raise _incompatible(problems)
    notes = [f"{left_out} tensors out of scope are copied"] if left_out else []
    return Alignment(tuple(steps), aliases, tuple(notes))


def _mismatches(name: str, info: TensorInfo, models: Mapping[str, Checkpoint]) -> list[str]:
    problems = []
    for model, checkpoint in models.items():
        if name not in checkpoint:
            problems.append(f"{name}: missing in {model}")
            continue
        other = checkpoint.info(name)
        if other.shape != info.shape:
            problems.append(f"{name}: {list(info.shape)} expected, {list(other.shape)} in {model}")
        elif other.is_floating != info.is_floating:
            problems.append(f"{name}: {info} expected, {other} in {model}")
    return problems


def _incompatible(problems: list[str]) -> IncompatibleModels:
    rows = [p for p in problems if "embed" in p or "lm_head" in p or "wte" in p]
    fix = "leave tensors out with `modelpool.scope.exclude`, or name task heads in `modelpool.heads`"
    if rows and any("expected" in row for row in rows):
        fix = (
            "if it is the vocabularies that differ, say which tokens the result has:\n"
            "modelpool.tokenizer=base (or union, or a model's name) aligns the rows token by token;\n" + fix
        )
    shown = problems[:_SHOWN] + ([f"… and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])
    count = f"{len(problems)} tensors differ" if len(problems) > 1 else "1 tensor differs"
    return IncompatibleModels(
        f"the models do not fit together: {count}",
        why="\n".join(shown),
        fix=fix,
    )


def _common_aliases(template: Checkpoint, everyone: Iterable[Checkpoint]) -> dict[str, str]:
    """Tied names that are tied, or absent, in every checkpoint; others are written apart."""
    everyone = list(everyone)
    return {
        alias: kept
        for alias, kept in template.aliases.items()
        if all(c.aliases.get(alias) == kept or alias not in c for c in everyone)
    }


def _promote(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    return reduce(_promote_pair, dtypes)


def _promote_pair(a: torch.dtype, b: torch.dtype) -> torch.dtype:
    # torch does not promote 8-bit floats; any pair with one goes to the wider partner.
    if a == b:
        return a
    if min(a.itemsize, b.itemsize) == 1 and a.is_floating_point and b.is_floating_point:
        return max(a, b, key=lambda dtype: dtype.itemsize) if a.itemsize != b.itemsize else torch.float16
    return torch.promote_types(a, b)
