"""How fast merging is, against the physical limit and against peers; `make bench`.

    python benchmarks/merge.py                         a 0.3B Llama in bf16, a base and three models
    python benchmarks/merge.py --quick                 a smaller one, once
    python benchmarks/merge.py --size 1.1B --peers     mergekit and fusion_bench as well
    python benchmarks/merge.py --methods ties della --runs 5
    python benchmarks/merge.py --size clip-b32         eight CLIP vision models in fp32

The limit reads every input once and writes the output through the engine's own reader, threads and
writer, without any arithmetic. Rounds interleave everything that is compared, and ratios are medians
over rounds, so that a busy machine spoils them as little as possible. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import measure
import torch
from models import SIZES, Models, make_models
from ours import METHODS, Engine, run_command
from peers import KNOWN, PEERS
from picture import bars

import fusionbench_core
from fusionbench_core.processors import available_cpus

RESULTS = Path(__file__).parent / "results"
LIMIT, ENGINE, FIRST, RUN = "limit", "engine", "fb run, first", "fb run"
Runner = Callable[[], measure.Cost]


def main() -> None:
    arguments = _arguments()
    if arguments.quick:
        arguments.size, arguments.runs = "0.07B", 1
    shape = SIZES[arguments.size]
    arguments.models = arguments.models or shape.models
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="merge-bench-") as directory:
        work = Path(directory)
        os.environ["FB_CACHE_HOME"], os.environ["FB_CONFIG_HOME"] = str(work / "cache"), str(work / "config")
        print(f"writing a base and {arguments.models} models of {arguments.size} …", flush=True)
        models = make_models(work / "models", shape, arguments.models)
        interpreters, notes = _peers() if arguments.peers else ({}, [])
        costs: dict[str, dict[str, list[measure.Cost]]] = {}
        text = ""
        for method in arguments.methods:
            runners = _runners(method, models, work, arguments.threads, interpreters)
            costs[method] = _rounds(method, runners, arguments.runs, notes)
            text = _save(_result(arguments, models, costs, notes))
    print(text)


def _save(result: dict) -> str:
    """Write what is known so far, beside other methods measured before; gives the table."""
    RESULTS.mkdir(exist_ok=True)
    name = f"merge-{result['size']}"
    result["methods"] = {**_measured_before(RESULTS / f"{name}.json", result), **result["methods"]}
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    text = _markdown(result)
    (RESULTS / f"{name}.md").write_text(text)
    groups = [
        (method, [(row["what"], row["times_limit"]) for row in rows])
        for method, rows in result["methods"].items()
    ]
    label = "time to merge, in multiples of the physical limit (logarithmic)"
    (RESULTS / f"{name}.svg").write_text(bars(groups, label=label))
    return text


def _measured_before(file: Path, result: dict) -> dict:
    """Methods of an earlier call with the same models and versions."""
    if not file.exists():
        return {}
    before = json.loads(file.read_text())
    alike = all(before[key] == result[key] for key in ("parameters", "models", "machine", "versions"))
    return before["methods"] if alike else {}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="0.3B", help="parameters of each model")
    parser.add_argument("--models", type=int, help="fine-tuned models beside the base; 3, or 8 of CLIP")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS)[:3])
    parser.add_argument("--runs", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--threads", type=int, default=available_cpus(), help="worker threads of ours")
    parser.add_argument("--peers", action="store_true", help="install and measure other tools as well")
    parser.add_argument("--quick", action="store_true", help="0.07B, one round")
    parser.add_argument(
        "--directory", help="where the models go; by default the system's temporary directory"
    )
    return parser.parse_args()


def _peers() -> tuple[dict[str, tuple[Path, Callable]], list[str]]:
    found, notes = {}, []
    for peer in PEERS:
        print(f"installing {peer.requirement} …", flush=True)
        try:
            found[peer.name] = (peer.install(), peer.command)
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", None) or str(error)
            notes.append(f"{peer.name} could not be installed: {said.strip().splitlines()[-1]}")
    return found, notes


def _runners(
    method: str, models: Models, work: Path, threads: int, peers: dict[str, tuple[Path, Callable]]
) -> dict[str, Runner]:
    engine, output = Engine(models, work / "engine", threads), work / "out"

    def whole() -> measure.Cost:
        return measure.of_process(run_command(method, models, output, threads))

    def first() -> measure.Cost:
        with tempfile.TemporaryDirectory(dir=work) as cache:
            command = run_command(method, models, output, threads)
            return measure.of_process(command, env={"FB_CACHE_HOME": cache})

    def peer(python: Path, command: Callable) -> measure.Cost:
        shutil.rmtree(output, ignore_errors=True)
        env = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
        cost = measure.of_process(command(python, method, models, output), env=env)
        if not [*output.glob("*.safetensors"), *output.glob("*.bin")]:
            raise measure.Failed("it ended without an error, and without having written any weights")
        return cost

    return {
        LIMIT: lambda: measure.of_call(lambda: engine.limit(method)),
        ENGINE: lambda: measure.of_call(lambda: engine.merge(method)),
        FIRST: first,
        RUN: whole,
        **{name: lambda found=found: peer(*found) for name, found in peers.items() if method in KNOWN[name]},
    }


def _rounds(
    method: str, runners: dict[str, Runner], runs: int, notes: list[str]
) -> dict[str, list[measure.Cost]]:
    costs: dict[str, list[measure.Cost]] = {what: [] for what in runners}
    runners[LIMIT]()  # brings the files into the page cache
    runners[RUN]()  # has names looked up and kernels compiled, as `fb run, first` does each time
    for number in range(runs):
        for what in list(costs):
            try:
                cost = runners[what]()
            except measure.Failed as error:
                notes.append(f"{what} failed on {method}: {str(error).splitlines()[-1]}")
                del costs[what]
                continue
            costs[what].append(cost)
            print(f"{method} {number + 1}/{runs}  {what:<20} {cost.wall:8.2f} s", flush=True)
    return costs


def _result(
    arguments: argparse.Namespace,
    models: Models,
    costs: dict[str, dict[str, list[measure.Cost]]],
    notes: list[str],
) -> dict:
    methods = {}
    for method, each in costs.items():
        rows = []
        for what, found in each.items():
            cost = measure.middle(found)
            rows.append(
                {
                    "what": what,
                    "rounds": len(found),
                    "wall_seconds": round(cost.wall, 3),
                    "cpu_seconds": round(cost.cpu, 3),
                    "anonymous_bytes": cost.memory,
                    "times_limit": round(measure.ratio(found, each[LIMIT]), 2),
                    "times_fb_run": round(measure.ratio(found, each[RUN]), 2) if RUN in each else None,
                    "cpu_times_limit": round(cost.cpu / _cpu(each[LIMIT]), 2),
                }
            )
        methods[method] = rows
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "size": arguments.size,
        "parameters": models.parameters,
        "bytes_a_model": models.bytes_each,
        "dtype": str(SIZES[arguments.size].dtype).removeprefix("torch."),
        "models": arguments.models,
        "threads": arguments.threads,
        "machine": {
            "system": platform.system(),
            "architecture": platform.machine(),
            "cpus": available_cpus(),
        },
        "versions": {
            "fusionbench-core": fusionbench_core.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "methods": methods,
        "notes": notes,
    }


def _cpu(costs: list[measure.Cost]) -> float:
    """Median processor time, never zero."""
    return max(measure.middle(costs).cpu, 1e-3)


def _markdown(result: dict) -> str:
    size = f"{result['parameters'] / 1e9:.2f} billion parameters"
    counts = [row["rounds"] for rows in result["methods"].values() for row in rows]
    rounds = "one round" if max(counts) == 1 else f"medians of up to {max(counts)} rounds"
    lines = [
        f"Merging a base and {result['models']} models of {size} "
        f"({result['dtype']}, {result['bytes_a_model'] / 1e9:.2f} GB each), {result['threads']} threads, "
        f"{rounds}. `limit` reads the inputs once and writes the output, without arithmetic; "
        "`engine` is the merge alone; all others are whole processes, start-up included; `fb run, first` has "
        "an empty cache, so that transformers is asked for names and C functions are compiled.",
        "",
        "| method | what | x limit | x `fb run` | CPU, x limit | median s | CPU s | anonymous memory, MB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for method, rows in result["methods"].items():
        for row in rows:
            memory = "" if row["anonymous_bytes"] is None else f"{row['anonymous_bytes'] / 1e6:.0f}"
            against = "" if row["times_fb_run"] is None else f"{row['times_fb_run']:.2f}"
            ratios = f"{row['times_limit']:.2f} | {against} | {row['cpu_times_limit']:.2f}"
            seconds = f"{row['wall_seconds']:.2f} | {row['cpu_seconds']:.2f}"
            lines.append(f"| {method} | {row['what']} | {ratios} | {seconds} | {memory} |")
    lines += ["", *(f"- {note}" for note in result["notes"])]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
