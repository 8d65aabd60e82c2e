"""The examinations of `fb doctor`; each yields findings and raises nothing."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import importlib_metadata as metadata

from fusionbench_core.places import cache_home, config_home
from fusionbench_core.plugins import Plugin, settings
from fusionbench_core.plugins.discovery import CORE, find
from fusionbench_core.plugins.loading import describe
from fusionbench_core.registry import KINDS, Registry

PACKAGES = (
    CORE,
    "torch",
    "lightning",
    "transformers",
    "open_clip_torch",
    "peft",
    "datasets",
    "safetensors",
    "pydantic",
    "hydra-core",
    "omegaconf",
    "pluggy",
    "click",
    "numpy",
)
SLOW_MS = 150.0
LOW_DISK_BYTES = 5 * 1000**3


class Finding(NamedTuple):
    """One thing to know: an `error` must be mended, a `warning` need not."""

    level: Literal["error", "warning"]
    what: str
    fix: str = ""


def versions() -> dict[str, str]:
    """Python and the packages that matter; those not installed say so."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str]:
    """Processor, threads and devices, as torch sees them."""
    found = {"platform": platform.platform(), "processors": str(os.cpu_count())}
    try:
        import torch
    except (Exception, SystemExit) as error:
        return {**found, "torch": f"cannot be imported: {describe(error)}"}
    found["threads"] = str(torch.get_num_threads())
    cuda = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    found["devices"] = ", ".join(["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in cuda)])
    return found


def places() -> dict[str, str]:
    """Where settings and caches lie, and what is free there."""
    hub = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    return {
        "settings": str(config_home()),
        "cache": str(cache_home()),
        "hub cache": hub,
        "working directory": f"{Path.cwd()} ({_free(Path.cwd()) / 1e9:.1f} GB free)",
    }


def plugin_findings(plugins: Iterable[Plugin]) -> Iterator[Finding]:
    """Plugins that do not work, import slowly, or print while loading."""
    present = set()
    for plugin in plugins:
        present.add(plugin.namespace)
        if plugin.status not in ("ok", "disabled"):
            yield Finding(
                "error", f"plugin {plugin.namespace} is {plugin.status}: {plugin.cause}", plugin.fix
            )
        if plugin.load_ms > SLOW_MS:
            yield Finding(
                "warning",
                f"plugin {plugin.namespace} takes {plugin.load_ms:.0f} ms to load, in every command",
                "its author should import torch and the like only in the targets of records",
            )
        if plugin.printed.strip():
            yield Finding(
                "warning", f"plugin {plugin.namespace} prints while loading: {plugin.printed.strip()}"
            )
    gone = sorted(settings.disabled() - present)
    if gone:
        yield Finding(
            "warning",
            f"switched off, but not installed: {', '.join(gone)}",
            f"edit {settings.settings_file()}",
        )


def requirement_findings() -> Iterator[Finding]:
    """Requirements of the core and its plugins that the installed versions do not meet."""
    from packaging.requirements import InvalidRequirement, Requirement

    names = [CORE, *(name for plugin in find() for name in plugin.distribution.split(", "))]
    for name in names:
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for text in requirements:
            try:
                wanted = Requirement(text)
                if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                    continue
                installed = metadata.version(wanted.name)
            except InvalidRequirement:
                yield Finding("warning", f"{name} declares a malformed requirement: {text!r}")
            except metadata.PackageNotFoundError:
                yield Finding(
                    "error", f"{name} needs {text}, which is not installed", f"pip install '{text}'"
                )
            else:
                if not wanted.specifier.contains(installed, prereleases=True):
                    what = f"{name} needs {text}; {wanted.name} {installed} is installed"
                    yield Finding("error", what, f"pip install '{text}'")


def name_findings(registry: Registry) -> Iterator[Finding]:
    """Full names that are declared more than once, and are therefore used by nobody."""
    for kind in KINDS:
        for name, records in registry.conflicts(kind).items():
            who = ", ".join(sorted({record.origin.distribution for record in records}))
            yield Finding("error", f"the {kind} {name} is declared {len(records)} times, by {who}")


def disk_findings() -> Iterator[Finding]:
    """Little free space where runs are written by default."""
    free = _free(Path.cwd())
    if free < LOW_DISK_BYTES:
        yield Finding(
            "warning", f"only {free / 1e9:.1f} GB are free in {Path.cwd()}", "set output_dir to another disk"
        )


def foreign_findings() -> Iterator[Finding]:
    """Code of others that Lightning Fabric would run inside learned methods."""
    for point in metadata.entry_points(group="lightning.fabric.callbacks_factory"):
        yield Finding(
            "warning", f"Lightning Fabric will load callbacks of others: {point.name} ({point.value})"
        )


def check_findings(registry: Registry) -> Iterator[Finding]:
    """What the checks that plugins bring have to say."""
    for record in registry.all("check"):
        try:
            problems = list(registry.resolve(record)())
        except (Exception, SystemExit) as error:
            yield Finding("error", f"the check {record.full_name} failed: {describe(error)}")
        else:
            yield from (Finding("error", f"{record.full_name}: {problem}") for problem in problems)


def _free(directory: Path) -> int:
    return shutil.disk_usage(directory).free
