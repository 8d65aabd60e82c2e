"""Whether what another run has learned was learned of the same models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fusionbench_core.checkpoints.fingerprints import fingerprint
from fusionbench_core.errors import ConfigError, FusionError
from fusionbench_core.pools.pool import ModelPool
from fusionbench_core.report import read_report
from fusionbench_core.run.directory import RunDirectory


def inputs_of(pool: ModelPool) -> dict[str, Any]:
    """What the models of a pool are told by, in its order: `base` and `models`, name -> identity."""
    return {
        "base": pool.base.checkpoint.identity() if pool.base else None,
        "models": {name: pool.checkpoint(name).identity() for name in pool},
    }


def check_learned_from(directory: RunDirectory, pool: ModelPool) -> str | None:
    """A remark, if it cannot be told whether the run in `directory` was over the models of `pool`.

    Files that have not changed since are the same. Of others the report's content hashes tell; what is
    learned goes by the order of the models, and names do not matter.

    Raises:
        ConfigError: if it was over others.
    """
    if not directory.path.is_dir():
        return None  # The method says that there is nothing to start from.
    here, before, contents = (
        _models(inputs_of(pool)),
        _models(directory.inputs()),
        _models(_hashes(directory)),
    )
    if (known := contents or before) and len(known) != len(here):
        raise _other(directory, f"it had {len(known) - 1} models, and there are {len(here) - 1} now")
    unsure = []
    for place, (name, identity) in enumerate(here):
        if before and before[place][1] == identity:
            continue
        content = contents[place][1] if contents else None
        if identity is None or content is None:
            unsure.append(name)
        elif fingerprint(pool.checkpoint(name if place else None)) != content:
            raise _other(directory, f"{name} differs from what was {contents[place][0]} there")
    if not unsure:
        return None
    names = ", ".join(unsure)
    return f"whether {directory.path} is over the same models cannot be told: {names} changed or moved since"


def _other(directory: RunDirectory, why: str) -> ConfigError:
    return ConfigError(
        "what is there was learned of other models",
        config="learned_from",
        directory=directory.path,
        why=why,
        fix="give the directory of a run over the same models in the same order",
    )


def _models(section: Mapping[str, Any] | None) -> list[tuple[str, str | None]]:
    """The base and all models, with what they are told by."""
    if section is None:
        return []
    return [("the base", section["base"]), *section["models"].items()]


def _hashes(directory: RunDirectory) -> dict[str, Any] | None:
    """Content hashes that the report of a run names; None without a report."""
    try:
        pool = read_report(directory.path).modelpool
        base = pool["base"]
        models = {name: facts["fingerprint"] for name, facts in pool["models"].items()}
        return {"base": base["fingerprint"] if base else None, "models": models}
    except (FusionError, KeyError, TypeError):
        return None
