"""`fb evaluate`: measure a model or an artefact."""

from __future__ import annotations

import click

from fusionbench_core.cli.help import examples
from fusionbench_core.cli.output import emit_json, json_option, table


@click.command(
    "evaluate",
    epilog=examples(
        "fb evaluate runs/mine/model --taskpool embedded_text",
        "fb evaluate pkg://fb_nlp_tasks/embedded/minilm --taskpool embedded_text --limit 100",
        "fb evaluate ./my-model --source text_encoder --taskpool embedded_text --json",
    ),
)
@click.argument("model")
@click.option("--taskpool", "-t", required=True, metavar="NAME", help="Task pool: a preset or a YAML file.")
@click.option("--source", metavar="NAME", help="Model source; recognised if left out.")
@click.option(
    "--split", type=click.Choice(["train", "validation", "test"]), default="test", show_default=True
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many samples a task.")
@click.option("--task", "only", metavar="NAME", help="Measure this task only.")
@json_option
def command(
    model: str,
    taskpool: str,
    source: str | None,
    split: str,
    limit: int | None,
    only: str | None,
    as_json: bool,
) -> None:
    """Measure a model on a pool of tasks.

    MODEL is an artefact that `fb run` wrote, a local model, pkg://PACKAGE/PATH, or a hub id.
    """
    from fusionbench_core.api import load
    from fusionbench_core.cli.progress import make_console
    from fusionbench_core.config import FabricConfig, load_preset
    from fusionbench_core.errors import UnknownName
    from fusionbench_core.registry import default_registry
    from fusionbench_core.run.prepare import compute_device
    from fusionbench_core.suggest import did_you_mean
    from fusionbench_core.tasks.pool import build_task_pool

    registry = default_registry()
    section = {**load_preset("taskpool", taskpool, registry), "split": split, "limit": limit}
    pool = build_task_pool(section, registry)
    if only is not None and only not in pool.tasks:
        raise UnknownName(
            f"the task pool has no task {only!r}",
            fix=did_you_mean(only, list(pool.tasks)) or f"its tasks are {', '.join(pool.tasks)}",
        )
    console = make_console(as_json)
    console.stage("evaluate", model)
    try:
        results = pool.evaluate(
            load(model, source),
            device=compute_device(FabricConfig()),
            only=only,
            on_progress=lambda task, done, total: console.progress(done, total, task),
        )
    finally:
        console.close()
    if as_json:
        emit_json({name: result.to_json() for name, result in results.items()})
        return
    metrics = list(dict.fromkeys(metric for result in results.values() for metric in result.metrics))
    rows = [
        [
            name,
            *(f"{result.metrics.get(metric, float('nan')):.4f}" for metric in metrics),
            _interval(result),
            result.n,
        ]
        for name, result in results.items()
    ]
    if len(results) > 1:
        means = [
            sum(r.metrics.get(metric, 0.0) for r in results.values()) / len(results) for metric in metrics
        ]
        rows.append(["average", *(f"{mean:.4f}" for mean in means), "", sum(r.n for r in results.values())])
    table(["task", *metrics, "95 %", "n"], rows)


def _interval(result) -> str:
    interval = result.intervals.get("accuracy")
    return f"{interval[0]:.3f} … {interval[1]:.3f}" if interval else ""
