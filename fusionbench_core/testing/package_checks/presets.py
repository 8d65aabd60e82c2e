"""The YAML presets that a plugin brings."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusionbench_core.config.presets import package_directory
from fusionbench_core.registry import Registry
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.plugin_subject import PluginSubject


@check("FP-112", required=False, level="full", requires=("FP-101", "FP-106", "FP-107"))
def presets_valid(subject: PluginSubject) -> str | None:
    """Its presets are found in the installed package, parse, and are valid.

    A preset that was left out of the wheel works on the author's machine only.

    Fix: let the wheel hold the YAML files, and try each: `fb plan --config-name NAME`.
    """
    assert subject.plugin is not None
    records = subject.plugin.records.get("config", ())
    if not records:
        raise Inapplicable("it has no presets")
    own = f"'{subject.plugin.namespace}/"
    missing = []
    for record in records:
        for name, file in _presets(record.package):
            lacks = _validate(subject.registry, name, file)
            if lacks and own in lacks:
                raise Violation(f"the preset {name} names what is not there: {lacks}", measured=file)
            missing += [f"{name}: {lacks}"] if lacks else []
    return f"some presets need other plugins: {'; '.join(missing)}" if missing else None


def _presets(package: str) -> Iterator[tuple[str, Path]]:
    try:
        importlib.resources.files(package)
    except (ImportError, TypeError) as error:
        raise Violation(f"the package of presets {package} is not installed: {error}") from error
    top = package_directory(package)
    files = sorted(top.rglob("*.yaml")) if top else []
    if top is None or not files:
        raise Violation(f"the package of presets {package} holds no YAML file", measured=top)
    return ((file.relative_to(top).with_suffix("").as_posix(), file) for file in files)


def _validate(registry: Registry, name: str, file: Path) -> str | None:
    """What a preset names that is not installed; None if all is.

    Raises:
        Violation: if the preset is wrong.
    """
    from pydantic import ValidationError

    from fusionbench_core.errors import FusionError, UnknownName
    from fusionbench_core.methods.build import build_method
    from fusionbench_core.pools.config import build_pool
    from fusionbench_core.tasks.pool import build_task_pool

    try:
        sections = _sections(registry, name)
        for group, build in (
            ("method", build_method),
            ("modelpool", build_pool),
            ("taskpool", build_task_pool),
        ):
            if sections.get(group):
                build(sections[group], registry, file=file)
    except UnknownName as error:
        return error.what
    except (FusionError, ValidationError) as error:
        raise Violation(f"the preset {name} is wrong: {error}", measured=file) from None
    return None


def _sections(registry: Registry, name: str) -> dict[str, Any]:
    from fusionbench_core.config import RunConfig, compose, load_preset
    from fusionbench_core.run.comparison import CompareConfig

    group, _, choice = name.partition("/")
    if choice:
        return {group: load_preset(group, choice, registry)}
    values = compose(config_name=name, registry=registry).values
    if "compare" in values:
        CompareConfig.model_validate(values["compare"])
        return {}
    return RunConfig.model_validate(values).model_dump()
