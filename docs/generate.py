"""Write the reference pages from the registry, the command line, the config models and the schema.

    python docs/generate.py            write all pages
    python docs/generate.py --check    exit with 1 and the names of those that would change
    python docs/generate.py --demo F   first take the report F of `make demo` for the table and the picture
    python docs/generate.py --results P D…   first add what `fb run --config-name P` gave, a directory a seed

The prose is in `_generate/templates`; `{{ name }}` there is replaced by what the modules of `_generate` make.
Only the plugins of this repository are described, whatever else is installed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _generate import (
    api,
    benchmarks,
    checks,
    commands,
    components,
    config,
    demo,
    errors,
    hooks,
    methods,
    parity,
    report,
    results,
    speed,
    text,
)

from fusionbench_core import records
from fusionbench_core.known import NAMESPACES
from fusionbench_core.plugins import load_plugins
from fusionbench_core.registry import Registry
from fusionbench_core.testing import catalogue

ROOT = text.ROOT
REFERENCE = "docs/reference"
NOTE = "<!-- Written by docs/generate.py; do not edit. -->"
TEMPLATES = Path(__file__).parent / "_generate/templates"

_PLACE = re.compile(r"\{\{ (\w+) \}\}")


def pages() -> dict[str, str]:
    """Path from the root of the repository -> text, of every generated page."""
    registry = Registry([plugin for plugin in load_plugins() if plugin.namespace in NAMESPACES])
    made = {
        "index.md": {"contents": _contents(registry)},
        "methods/index.md": methods.overview(registry),
        "laws.md": methods.laws(registry),
        "parity.md": parity.parity(registry),
        "sources.md": components.components(registry, "source"),
        "tasks.md": components.components(registry, "task"),
        "statistics.md": components.components(registry, "statistic", "builder"),
        "presets.md": components.presets(registry),
        "benchmarks.md": benchmarks.benchmarks(),
        "config.md": config.config(),
        "cli.md": commands.cli(),
        "api.md": api.api(),
        "hooks.md": hooks.hooks(),
        "conformance.md": checks.checks(),
        "errors.md": errors.error_classes(),
        "report.md": report.report(),
        "results.md": results.results(),
        "speed.md": speed.speed(),
    }
    texts = {name: _filled(name, fragments) for name, fragments in made.items()}
    texts |= {f"methods/{found.name}.md": methods.page(found, registry) for found in registry.all("method")}
    reference = {f"{REFERENCE}/{name}": f"{NOTE}\n\n{page.rstrip()}\n" for name, page in texts.items()}
    return {**reference, **results.pictures(), **speed.pictures(), **demo.demo()}


def _filled(name: str, fragments: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: fragments[place[1]], (TEMPLATES / name).read_text(encoding="utf-8"))


def _contents(registry: Registry) -> str:
    def count(*kinds: str) -> int:
        return sum(len(registry.all(kind)) for kind in kinds)

    rows = [
        ("[Methods](methods/index.md)", count("method"), "formula, parameters, needs, laws, paper"),
        ("[Methods by law](laws.md)", len(records.Law), "which algebraic laws each method keeps"),
        ("[Parity with other tools](parity.md)", "", "the results of mergekit and fusion_bench, compared"),
        ("[Model sources](sources.md)", count("source"), "what opens models"),
        ("[Tasks](tasks.md)", count("task"), "what measures them"),
        ("[Statistics and builders](statistics.md)", count("statistic", "builder"), "what methods rely on"),
        ("[Presets](presets.md)", len(components.preset_rows(registry)), "configs that plugins bring"),
        ("[Methods on the benchmarks](results.md)", "", "accuracy of every method, with data and without"),
        (
            "[Speed and memory](speed.md)",
            "",
            "large merges, against the physical limit and other tools",
        ),
        ("[Embedded benchmarks](benchmarks.md)", "", "data, sizes, sources and licences"),
        ("[Config keys](config.md)", "", "every key of a config"),
        ("[Command line](cli.md)", len(list(commands.commands())), "the help of every command"),
        ("[Python API](api.md)", len(api.public()), "every public name of `fusionbench_core`"),
        ("[Hooks and records](hooks.md)", len(list(hooks.specifications())), "what a plugin implements"),
        ("[Conformance checks](conformance.md)", len(catalogue()), "what the kit checks, and why"),
        ("[Errors and exit statuses](errors.md)", len(errors.exit_statuses()), "what may go wrong"),
        ("[Report](report.md)", "", "the keys of `report.json`"),
    ]
    return text.table(("page", "entries", "what"), rows)


def main() -> int:
    """Write the pages, or check them."""
    if "--demo" in sys.argv[1:]:
        demo.take(Path(sys.argv[sys.argv.index("--demo") + 1]))
    if "--results" in sys.argv[1:]:
        preset, *directories = sys.argv[sys.argv.index("--results") + 1 :]
        results.take(preset, [Path(directory) for directory in directories])
    made = pages()
    stale = [path for path, page in made.items() if _text_of(ROOT / path) != page]
    present = {path.relative_to(ROOT).as_posix() for path in (ROOT / REFERENCE).rglob("*.md")}
    gone = sorted(present - made.keys())
    if "--check" in sys.argv[1:]:
        print("\n".join([*stale, *gone]))
        return 1 if stale or gone else 0
    for path in stale:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(made[path], encoding="utf-8")
    for path in gone:
        (ROOT / path).unlink()
    print(f"{len(made)} pages, {len(stale)} written, {len(gone)} removed")
    return 0


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
