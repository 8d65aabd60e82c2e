"""Interruption, saving, loading: what is on disk is what was fused."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench_core.errors import FusionError
from fusionbench_core.plugins import Plugin
from fusionbench_core.plugins.loading import describe
from fusionbench_core.records import MethodRecord
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.picture import assert_alike, assert_same, picture_of
from fusionbench_core.testing.subjects import subject_of

if TYPE_CHECKING:
    from torch import Tensor


@check("FM-405", level="full", requires=("FM-301", "FM-303"))
def resumes(subject: MethodSubject) -> None:
    """A merge that was interrupted and goes on writes the same file as one that was not.

    Merges of hours are interrupted; a file of two halves that do not fit is found out weeks later.

    Fix: let `merge` depend on its group alone: keep no counter, cache or generator on the method.
    """
    from fusionbench_core.methods import TensorMethod
    from fusionbench_core.testing.artefacts import pool_for, write_artefact

    if not issubclass(subject.cls, TensorMethod):
        raise Inapplicable("it writes nothing before everything is done")
    case = subject.case()
    with tempfile.TemporaryDirectory() as scratch:
        pool = pool_for(subject, case, Path(scratch, "pool"))
        whole, resumed = Path(scratch, "whole"), Path(scratch, "resumed")
        method = subject.method(pool.names)
        write_artefact(subject, pool, case.tasks, whole, method=method)
        halfway = _interrupt_after(len(pool.reference_model.checkpoint) // 2)
        with suppress(_Interrupted):
            write_artefact(subject, pool, case.tasks, resumed, method=method, on_step=halfway)
        write_artefact(subject, pool, case.tasks, resumed, method=method)
        differing = [
            file.name
            for file in sorted(whole.iterdir())
            if file.suffix in (".json", ".safetensors")
            and file.read_bytes() != (resumed / file.name).read_bytes()
        ]
    if differing:
        raise Violation(
            f"interrupted halfway and resumed, it writes another file: {', '.join(differing)}",
            reproduce="fb run …, Ctrl-C, fb run --resume DIR",
        )


@check("FM-407", requires=("FM-301",))
def saved_and_loaded(subject: MethodSubject) -> None:
    """What is saved loads back equal, and without pickle.

    Whatever the artefact does not hold is lost, and a pickle runs code on the machine that loads it.

    Fix: give `Fused.of_module` all tensors, the arguments that make the module again, and the name of
    a registered builder.
    """
    from fusionbench_core.testing.artefacts import fuse_pool, load_written, pool_for, write_artefact

    case = subject.case()
    with tempfile.TemporaryDirectory() as scratch:
        pool = pool_for(subject, case, Path(scratch, "pool"))
        artefact = Path(scratch, "artefact")
        write_artefact(subject, pool, case.tasks, artefact)
        other = [f.name for f in artefact.rglob("*") if f.suffix not in (".json", ".md", ".safetensors")]
        if other:
            raise Violation(f"the artefact holds other files than safetensors, JSON and Markdown: {other}")
        loaded = picture_of(subject, _rebuilt(lambda: load_written(subject, artefact)), case)
        fused = picture_of(subject, fuse_pool(subject, pool, case.tasks), case)
    assert_same(loaded, fused, "saved and loaded, the result is another")


@check("FM-408", level="full", requires=("FM-407",))
def rebuilt(subject: MethodSubject) -> None:
    """A module of a new architecture is rebuilt in a fresh process, and computes the same.

    An artefact is loaded on another machine, where nothing is left of the process that made it.

    Fix: let the builder make the module from `context.arguments`, `context.skeleton` and
    `context.member` alone, and put what it needs in `Fused.of_module(arguments=…)`.
    """
    from fusionbench_core.testing.artefacts import fuse_pool, pool_for, write_artefact
    from fusionbench_core.testing.fresh import run

    if subject.gives_weights:
        raise Inapplicable("it gives weights, which need no builder")
    case = subject.case()
    # Hooks are functions of a module that the fresh process may load under another name.
    plugin = dataclasses.replace(subject.plugin, hooks={}) if subject.plugin else None
    with tempfile.TemporaryDirectory() as scratch:
        pool = pool_for(subject, case, Path(scratch, "pool"))
        artefact = Path(scratch, "artefact")
        write_artefact(subject, pool, case.tasks, artefact)
        found = _rebuilt(lambda: run(_outputs_of, str(artefact), subject.record, plugin))
        module: Any = fuse_pool(subject, pool, case.tasks)
    wanted = subject.outputs(module, case)
    assert_alike(subject, found, wanted, case, "rebuilt in a fresh process, it computes something else")


def _rebuilt(load: Callable[[], Any]) -> Any:
    """What `load()` gives; whatever a builder raises is a fault of its method."""
    try:
        return load()
    except (FusionError, Violation):
        raise
    except Exception as error:
        raise Violation(f"what was saved does not load: {describe(error)}") from error


class _Interrupted(KeyboardInterrupt):
    """The user's Ctrl-C, as the check makes it."""


def _interrupt_after(steps: int) -> Callable[[object], None]:
    done = 0

    def on_step(step: object) -> None:
        nonlocal done
        done += 1
        if done >= steps:
            raise _Interrupted

    return on_step


def _outputs_of(artefact: str, record: MethodRecord, plugin: Plugin | None) -> Mapping[str, Tensor]:
    """Task name -> logits of a saved module; runs in a fresh process."""
    from fusionbench_core.registry import Registry, default_registry
    from fusionbench_core.testing.artefacts import load_written

    installed = default_registry().plugins
    others = [plugin] if plugin and installed.get(plugin.namespace) is None else []
    subject = subject_of(record, Registry([*installed, *others]))
    assert isinstance(subject, MethodSubject)
    return subject.outputs(load_written(subject, Path(artefact)), subject.case())
