"""Run the stages in order: plan, fuse, write, evaluate, report. Each knows whether it is done already."""

from __future__ import annotations

import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fusionbench_core.artefact.load import is_artefact, load_artefact
from fusionbench_core.artefact.manifest import Manifest, read_manifest
from fusionbench_core.artefact.write import ArtefactWriter
from fusionbench_core.checkpoints.fingerprints import fingerprint
from fusionbench_core.engine.plan import Plan, make_plan
from fusionbench_core.errors import FusionError, Interrupted, TaskError
from fusionbench_core.methods.method import ModelMethod
from fusionbench_core.plugins import Observers
from fusionbench_core.registry import Registry
from fusionbench_core.report import Report, write_reports
from fusionbench_core.run.console import Console
from fusionbench_core.run.directory import RunDirectory
from fusionbench_core.run.environment import environment
from fusionbench_core.run.fusing import fuse_to_disk
from fusionbench_core.run.learned import check_learned_from, inputs_of
from fusionbench_core.run.prepare import Prepared, compute_device
from fusionbench_core.run.reporting import make_report
from fusionbench_core.run.state import Run
from fusionbench_core.run.tuning import tune
from fusionbench_core.tasks.pool import ResultStore
from fusionbench_core.tasks.result import TaskResult


class Runner:
    """Executes one run.

    Args:
        prepared: The checked config and objects.
        directory: A new run directory, or one to resume.
        registry: Where sources, statistics and builders are found.
        console: Where progress goes.
        command: The command line, for the report.
    """

    def __init__(
        self,
        prepared: Prepared,
        directory: RunDirectory,
        registry: Registry,
        console: Console | None = None,
        command: list[str] | None = None,
    ) -> None:
        self.run = Run(prepared, directory, command if command is not None else sys.argv)
        self._registry = registry
        self._console = console or Console()
        self._observers = Observers(registry.plugins)

    def execute(self) -> Report:
        """Do what is not done yet; gives the report, which is written too.

        Raises:
            FusionError: what stopped the run. Everything finished before is kept.
        """
        with self.run.directory.log() as log:
            self._observers.notify("fb_run_started", run=self.run)
            try:
                report = self._stages()
            except BaseException as error:
                log.error("%s: %s", type(error).__name__, error)
                self._observers.notify("fb_run_failed", run=self.run, error=error)
                if isinstance(error, KeyboardInterrupt):
                    raise self._interrupted() from error
                raise
            self._observers.notify("fb_run_finished", run=self.run, report=report)
            log.info("finished")
        return report

    def _stages(self) -> Report:
        run = self.run
        run.directory.write_json("environment.json", environment(self._registry.plugins.usable))
        if run.prepared.config.tune and not self._fused:
            with self._timed("tune"):
                self._tune()
        with self._timed("plan"):
            self._console.stage("plan")
            run.plan = make_plan(
                run.prepared.method, run.prepared.pool, run.prepared.options, seed=run.prepared.config.seed
            )
            if not self._fused and run.directory.planned() not in (None, run.plan.key):
                self._warn("the models or settings have changed since this run stopped; it begins anew")
                shutil.rmtree(run.directory.adaptation, ignore_errors=True)
            if run.prepared.config.learned_from and not self._fused:
                self._check_learned_from(run.prepared.config.learned_from)
            run.directory.write_plan({**run.plan.summary(), "inputs": inputs_of(run.prepared.pool)})
        with self._timed("fuse"):
            self._fuse(run.plan)
        if run.prepared.tasks is None:
            return self._report("complete")
        try:
            with self._timed("evaluate"):
                self._evaluate()
        except (TaskError, KeyboardInterrupt) as error:
            self._report("interrupted" if isinstance(error, KeyboardInterrupt) else "partial")
            raise
        return self._report("complete")

    def _check_learned_from(self, place: str) -> None:
        if remark := check_learned_from(RunDirectory(Path(place)), self.run.prepared.pool):
            self._warn(remark)

    def _tune(self) -> None:
        run = self.run
        method, tuning = tune(run.prepared, self._registry, self._console)
        run.prepared = replace(run.prepared, method=method)
        run.tuning = tuning

    def _fuse(self, plan: Plan) -> None:
        run, prepared = self.run, self.run.prepared
        if self._fused:
            run.manifest = read_manifest(run.model_directory)
            method = type(prepared.method).model_validate(run.manifest.method["parameters"])
            run.prepared = replace(prepared, method=method)
            run.details, run.adaptation = run.directory.read_details()
            self._console.stage("fuse", "done already")
            return
        writer = ArtefactWriter(
            run.model_directory,
            prepared.method,
            prepared.record,
            prepared.pool,
            options=prepared.options,
            seed=prepared.config.seed,
        )
        if prepared.finish and isinstance(prepared.method, ModelMethod):
            self._warn("learning was ended before its last step, by --finish")
        tasks = prepared.tasks
        adaptation = tasks.for_adaptation(prepared.method.capabilities.tasks) if tasks else {}
        run.manifest, found = fuse_to_disk(
            prepared,
            plan,
            writer,
            self._registry,
            adaptation,
            self._console,
            lambda step: self._observers.notify("fb_tensor_done", run=run, step=step),
            scratch=run.directory.adaptation,
        )
        run.details = {**run.tuning, **found}
        run.adaptation = {name: dict(task.used) for name, task in adaptation.items() if task.used}
        # Before the model has its name: whatever stops the run now, `--resume` knows what it is about.
        run.directory.write_details(run.details, run.adaptation)
        writer.publish()

    @property
    def _fused(self) -> bool:
        """Whether the fusing stage finished: the details are written before the model has its name."""
        return self.run.directory.fused and is_artefact(self.run.model_directory)

    def _evaluate(self) -> None:
        run, tasks = self.run, self.run.prepared.tasks
        assert tasks is not None
        assert run.manifest is not None
        model = load_artefact(run.model_directory, self._registry)
        run.model_info = parameter_counts(model)
        self._console.stage("evaluate", f"{len(tasks.tasks)} tasks, split {tasks.config.split}")
        tasks.evaluate(
            model,
            device=compute_device(run.prepared.config.fabric),
            store=ResultStore(run.directory.results, _content(run.manifest)),
            on_result=self._evaluated,
            on_progress=lambda task, done, total: self._console.progress(done, total, task),
        )
        run.baselines = {kind: dict(found) for kind, found in tasks.config.baselines.items()}
        if run.prepared.config.check_baselines:
            self._measure_baselines()

    def _evaluated(self, result: TaskResult, cached: bool) -> None:
        self.run.results[result.task] = result
        self._observers.notify("fb_task_evaluated", run=self.run, result=result)
        accuracy, loss = result.metrics.get("accuracy"), result.metrics.get("loss")
        value = f" {accuracy:.3f}" if accuracy is not None else "" if loss is None else f" loss {loss:.3f}"
        self._console.line(f"{result.task}{value}")

    def _measure_baselines(self) -> None:
        """Measure the base on every task, every expert on its own, and other baselines on every task."""
        run, pool, tasks = self.run, self.run.prepared.pool, self.run.prepared.tasks
        assert tasks is not None
        device = compute_device(run.prepared.config.fabric)
        each: list[tuple[str, str | None, str | None]] = [("pretrained", None, None)] if pool.base else []
        each += [
            ("individual", name, pool.task_of(name))
            for name in pool.names
            if pool.task_of(name) in tasks.tasks
        ]
        each += [(name, name, None) for name in pool.baselines]
        measured: dict[str, dict[str, Any]] = {}
        for kind, model, task in each:
            self._console.stage("baseline", model or "base")
            checkpoint = pool.checkpoint(model)
            store = ResultStore(run.directory.results / (model or "_base_"), fingerprint(checkpoint))
            results = tasks.evaluate(
                pool.module(model),
                device=device,
                store=store,
                only=task,
                on_progress=lambda name, done, total: self._console.progress(done, total, name),
            )
            measured.setdefault(kind, {}).update({name: result.to_json() for name, result in results.items()})
        run.baselines = measured

    def _report(self, status: str) -> Report:
        config = self.run.prepared.config
        report = make_report(self.run, self._registry, status, self._observers.warnings)
        self._console.stage("report")
        reporters = [
            (name, self._registry.load("reporter", name))
            for name in config.report.formats
            if name not in ("json", "md", "html")
        ]
        formats = [name for name in config.report.formats if name in ("json", "md", "html")]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            write_reports(report, self.run.directory.path, formats, reporters)
        for warning in caught:
            self._console.line(f"warning: {warning.message}")
        if config.report_save_path:
            target = Path(config.report_save_path)
            written = write_reports(report, target.parent, ["json"])
            if written["json"] != target:
                written["json"].replace(target)
        return report

    def _warn(self, text: str) -> None:
        self.run.warnings.append(text)
        self._console.line(f"warning: {text}")

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.run.timings[stage] = time.perf_counter() - started

    def _interrupted(self) -> FusionError:
        return Interrupted(
            "interrupted; what is finished is kept",
            directory=self.run.directory.path,
            fix=self._ways_on(),
        )

    def _ways_on(self) -> str:
        resume = f"fb run --resume {self.run.directory.path}"
        if not (self.run.directory.adaptation.is_dir() and any(self.run.directory.adaptation.iterdir())):
            return f"go on: {resume}"
        return f"go on: {resume}\nor fuse with what is learned so far: {resume} --finish"


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """`all_params`, and those of them that could be trained; shared parameters counted once."""
    counts = [(parameter.numel(), parameter.is_floating_point()) for parameter in model.parameters()]
    return {
        "trainable_params": sum(number for number, trainable in counts if trainable),
        "all_params": sum(number for number, _ in counts),
    }


def _content(manifest: Manifest) -> str:
    """What results of this artefact are kept under: its tensors, or its members where it has none."""
    import hashlib

    return manifest.content_hash or hashlib.sha256(manifest.to_text().encode()).hexdigest()
