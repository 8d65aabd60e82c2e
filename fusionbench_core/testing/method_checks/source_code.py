"""What a method's source may not do, run or not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import lru_cache

from fusionbench_core.testing.check import Violation, check
from fusionbench_core.testing.method_checks.sources import calls, trees
from fusionbench_core.testing.method_subject import MethodSubject

_UNSAFE = {
    name: f"{name} runs what a file says"
    for module in ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "joblib")
    for name in (f"{module}.load", f"{module}.loads", f"{module}.Unpickler")
} | {
    "eval": "eval runs text as code",
    "exec": "exec runs text as code",
    "shelve.open": "shelve.open unpickles",
    "yaml.unsafe_load": "yaml.unsafe_load builds any object",
    "yaml.full_load": "yaml.full_load builds many objects",
}
_WRITING = frozenset(
    ("append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "clear", "remove")
)
_MUTABLE = frozenset(("dict", "list", "set", "defaultdict", "OrderedDict", "Counter", "deque"))


@check("FM-606")
def runs_no_data(subject: MethodSubject) -> None:
    """Its source neither unpickles, evaluates text, nor trusts remote code.

    A model file that is unpickled can do whatever its author likes, on the machine of whoever merges it.

    Fix: read safetensors with `open_checkpoint`; `torch.load(…, weights_only=True)` where there is no way
    around it.
    """
    for file, tree in trees(subject).items():
        for name, call in calls(tree):
            why = _unsafe(name, call)
            if why is not None:
                raise Violation(why, measured=f"{file}:{call.lineno}", bound="not in the source of a method")


@check("FM-607", required=False, level="full")
def keeps_no_state(subject: MethodSubject) -> None:
    """Its functions write to no variable of a module or class.

    State that outlives a run makes the next one depend on it, and threads on each other.

    Fix: keep intermediate values in local variables or in the survey.
    """
    for file, tree in trees(subject).items():
        for name, line in _written(tree):
            raise Violation(
                f"a function changes {name}, which lives as long as the process",
                measured=f"{file}:{line}",
                bound="constants only",
            )


def _unsafe(name: str, call: ast.Call) -> str | None:
    given = {each.arg: each.value for each in call.keywords}
    if _is(given.get("trust_remote_code"), True):
        return f"{name}(trust_remote_code=True) runs code that a repository holds"
    if name == "torch.load" and not _is(given.get("weights_only"), True):
        return "torch.load unpickles unless it says weights_only=True"
    if name in ("numpy.load", "np.load") and _is(given.get("allow_pickle"), True):
        return "numpy.load(allow_pickle=True) unpickles"
    loader = given.get("Loader", call.args[1] if len(call.args) > 1 else None)
    if name in ("yaml.load", "yaml.load_all") and "Safe" not in (ast.unparse(loader) if loader else ""):
        return f"{name} without a safe loader builds any object"
    return _UNSAFE.get(name.removeprefix("builtins."))


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@lru_cache(maxsize=256)
def _written(tree: ast.Module) -> list[tuple[str, int]]:
    """Variables of the module and of its classes that functions write to, and where."""
    return list(_found_written(tree))


def _found_written(tree: ast.Module) -> Iterator[tuple[str, int]]:
    shared = set(_mutable(tree.body))
    attributes = {
        name for node in tree.body if isinstance(node, ast.ClassDef) for name in _mutable(node.body)
    }
    filled = _used_at_import(tree)
    for function in _functions(tree):
        if function.name in filled:
            continue
        own = _local(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield ", ".join(node.names), node.lineno
            for target in _targets(node):
                if isinstance(target, ast.Name) and target.id in shared - own:
                    yield target.id, target.lineno
                elif (
                    isinstance(target, ast.Attribute)
                    and isinstance(target.value, ast.Name)
                    and target.attr in attributes
                ):
                    yield f"{target.value.id}.{target.attr}", target.lineno


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    """What a statement or a call changes in place."""
    if isinstance(node, (ast.Assign, ast.Delete)):
        yield from (each.value for each in node.targets if isinstance(each, ast.Subscript))
    if isinstance(node, ast.AugAssign):
        yield node.target.value if isinstance(node.target, ast.Subscript) else node.target
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _WRITING:
        yield node.func.value


def _mutable(body: list[ast.stmt]) -> Iterator[str]:
    """Names bound to dicts, lists and sets by these statements."""
    for node in body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or node.value is None:
            continue
        made = node.value.func if isinstance(node.value, ast.Call) else None
        kind = made.attr if isinstance(made, ast.Attribute) else getattr(made, "id", "")
        if isinstance(node.value, (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)) or (
            kind in _MUTABLE
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _used_at_import(tree: ast.Module) -> set[str]:
    """Functions that the module itself calls or decorates with: tables are filled by them at import."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names |= {
                each.id for each in ast.walk(ast.List(node.decorator_list)) if isinstance(each, ast.Name)
            }
    for statement in tree.body:
        if not isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            names |= _names(statement)
    return names


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _local(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Names that a function binds itself."""
    arguments = {each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)}
    bound = {
        each.id
        for each in ast.walk(function)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }
    return arguments | bound
