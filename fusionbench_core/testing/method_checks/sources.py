"""The source files that a method is made of, as syntax trees."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from functools import lru_cache
from pathlib import Path

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
        package, own = module.__package__ or "", module.__name__.partition(".")[0]
        imported = _imported(found[file], package)
        waiting.extend(name for name in imported if name.partition(".")[0] == own and name in sys.modules)
    return found


@lru_cache(maxsize=256)
def _parsed(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


@lru_cache(maxsize=256)
def _imported(tree: ast.Module, package: str) -> list[str]:
    """Names of the modules that a module of a package imports, wherever it does so, and of what it takes."""
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            whole = importlib.util.resolve_name(name, package) if node.level else name
            found += [whole, *(f"{whole}.{alias.name}" for alias in node.names)]
    return found


@lru_cache(maxsize=256)
def calls(tree: ast.Module) -> list[tuple[str, ast.Call]]:
    """`(dotted name, call)` of every call; names are those of the module they were imported from."""
    names: dict[str, str] = {}
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    found = []
    for node in nodes:
        if isinstance(node, ast.Call):
            first, *rest = _dotted(node.func)
            found.append((".".join([names.get(first, first), *rest]), node))
    return found


def _dotted(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Attribute):
        return [*_dotted(node.value), node.attr]
    # What is no name, such as the result of another call, cannot be an imported one.
    return [node.id] if isinstance(node, ast.Name) else ["?"]
