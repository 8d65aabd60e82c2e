"""The source files that a method is made of, as syntax trees."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from fusionbench_core.testing.subject import Subject


def trees(subject: Subject) -> dict[str, ast.Module]:
    """File -> syntax tree: the module of its class, and what that imports of the same package."""
    found: dict[str, ast.Module] = {}
    waiting = [subject.cls.__module__]
    while waiting:
        module = sys.modules.get(waiting.pop())
        file = inspect.getsourcefile(module) if module is not None and hasattr(module, "__file__") else None
        if module is None or file is None or file in found:
            continue
        found[file] = _parsed(file)
        waiting.extend(_imported(found[file], module))
    return found


@lru_cache(maxsize=256)
def _parsed(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def _imported(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """Names of the modules of the same package that a module imports, wherever it does so."""
    package = module.__name__.partition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            whole = importlib.util.resolve_name(name, module.__package__) if node.level else name
            names = [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == package and name in sys.modules)


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """`(dotted name, call)` of every call; names are those of the module they were imported from."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, *rest = _dotted(node.func)
            yield ".".join([names.get(first, first), *rest]), node


def _dotted(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [*_dotted(node.value), node.attr]
    # What is no name, such as the result of another call, cannot be an imported one.
    return [node.id] if isinstance(node, ast.Name) else ["?"]
