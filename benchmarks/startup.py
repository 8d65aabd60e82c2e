"""How long `fb` takes before it does anything, as multiples of an empty Python process.

python benchmarks/startup.py [--runs 20]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import measure

RESULTS = Path(__file__).parent / "results"
_FB = "from fusionbench_core.__main__ import program; program()"
EMPTY = "python -c pass"
COMMANDS = {
    EMPTY: ["-c", "pass"],
    "import click": ["-c", "import click"],
    "fb --help": ["-c", _FB, "--help"],
    "fb list methods": ["-c", _FB, "list", "methods"],
    "fb plugin list": ["-c", _FB, "plugin", "list"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=11, help="rounds; medians are shown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        env = {"FB_CACHE_HOME": f"{home}/cache", "FB_CONFIG_HOME": f"{home}/config"}
        (Path(home) / "config").mkdir()
        time.sleep(2.5)  # the cache of plugin facts is written once nothing has just changed
        costs = _rounds(arguments.runs, {**os.environ, **env})
    rows = [
        {
            "command": name,
            "times_python": round(measure.ratio(found, costs[EMPTY]), 2),
            "times_click": round(measure.ratio(found, costs["import click"]), 2),
            "wall_milliseconds": round(1000 * measure.middle(found).wall, 1),
            "cpu_milliseconds": round(1000 * measure.middle(found).cpu, 1),
        }
        for name, found in costs.items()
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "startup.json").write_text(
        json.dumps({"runs": arguments.runs, "commands": rows}, indent=1) + "\n"
    )
    text = _markdown(rows, arguments.runs)
    (RESULTS / "startup.md").write_text(text)
    print(text)


def _rounds(runs: int, env: dict[str, str]) -> dict[str, list[measure.Cost]]:
    costs: dict[str, list[measure.Cost]] = {name: [] for name in COMMANDS}
    for number in range(runs + 1):
        for name, words in COMMANDS.items():
            cost = measure.of_process([sys.executable, *words], env=env)
            if number:  # the first round fills the caches
                costs[name].append(cost)
    return costs


def _markdown(rows: list[dict], runs: int) -> str:
    lines = [
        f"Medians of {runs} interleaved rounds.",
        "",
        "| command | x `python -c pass` | x `import click` | wall ms | CPU ms |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| `{row['command']}` | {row['times_python']:.2f} | {row['times_click']:.2f} "
        f"| {row['wall_milliseconds']:.0f} | {row['cpu_milliseconds']:.0f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
