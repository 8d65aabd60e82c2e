"""Markdown from tables, signatures and docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fusionbench_core.cli import describe

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/fusionbench/fusionbench/blob/main"
WIDTH = 100


def table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [[_cell(value) for value in row] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(header))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parameters(rows: Iterable[dict[str, Any]], title: str = "parameter") -> str:
    """A table of what `describe.parameters` gives."""
    return table(
        (title, "type", "default", "range", "description"),
        [
            (
                f"`{row['name']}`",
                f"`{row['type']}`",
                "required" if row["required"] else f"`{_value(row['default'])}`",
                row["range"],
                row["description"],
            )
            for row in rows
        ],
    )


def _value(value: Any) -> str:
    if hasattr(value, "model_dump"):
        return "defaults"
    return "null" if value is None else {"True": "true", "False": "false"}.get(repr(value), repr(value))


def _cell(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split()).replace("|", "\\|")


def signature(function: Any, *, drop_self: bool = False) -> str:
    """A signature as it is written, on several lines if it is long."""
    found = inspect.signature(function)
    parameters = list(found.parameters.values())
    if drop_self and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    found = found.replace(parameters=parameters)
    returns = found.return_annotation
    arrow = "" if returns is inspect.Signature.empty else f" -> {_annotation(returns)}"
    words = [_parameter(parameter) for parameter in parameters]
    for place, parameter in enumerate(parameters):
        if parameter.kind is parameter.KEYWORD_ONLY:
            if all(p.kind is not p.VAR_POSITIONAL for p in parameters):
                words.insert(place, "*")
            break
    line = f"({', '.join(words)}){arrow}"
    if len(line) < WIDTH - 20:
        return line
    inside = "".join(f"    {word},\n" for word in words)
    return f"(\n{inside}){arrow}"


def _parameter(parameter: inspect.Parameter) -> str:
    stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
    text = f"{stars}{parameter.name}"
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        shown = "…" if callable(parameter.default) else repr(parameter.default)
        text += f" = {shown}"
    return text


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else describe.type_text(annotation)


_SECTION = re.compile(
    r"^(Args|Returns|Raises|Attributes|Notes?|References?|Examples?|Yields):[ ]*\n((?:[ ]{4}.*(?:\n|$)|\n)+)",
    re.MULTILINE,
)
_TITLES = {"Args": "Arguments", "Note": "Notes", "References": "Reference", "Example": "Example"}


def docstring(found: Any, *, sections: bool = True, skip: str = "") -> str:
    """A docstring as Markdown: sections become lists, roles become code, examples become blocks."""
    own = found.__doc__ if not inspect.isclass(found) else vars(found).get("__doc__")
    text = inspect.cleandoc(own) if own else ""
    first, _, rest = text.partition("\n\n")
    if skip and _bare(first) == _bare(skip):
        text = rest
    if not sections:
        text = _SECTION.sub("", text)
    text = _SECTION.sub(_section, f"{text}\n")
    text = re.sub(r"((?:^>>> .*\n(?:^(?!>>>|\n).*\n?)*)+)", r"```python\n\1```\n", text, flags=re.MULTILINE)
    return roles(text).strip()


def _section(found: re.Match[str]) -> str:
    name, inside = found[1], found[2]
    title = f"**{_TITLES.get(name, name)}**"
    if name not in ("Args", "Attributes", "Raises"):
        return f"{title}\n\n{inspect.cleandoc(inside)}\n\n"
    listed = entries(inside)
    if all(key for key, _ in listed):
        return f"{title}\n\n" + "\n".join(f"- `{key}`: {text}" for key, text in listed) + "\n\n"
    return f"{title}\n\n" + "\n\n".join(text for _, text in listed) + "\n\n"


def entries(text: str) -> list[tuple[str, str]]:
    """`name: description` entries of a section; an empty name where there is none."""
    lines = [line for line in inspect.cleandoc(f"\n{text}").splitlines() if line.strip()]
    found: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith(" ") and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
            continue
        key, colon, rest = line.partition(": ")
        found.append((key, rest) if colon and re.fullmatch(r"[\w`, .()]+", key) else ("", line))
    return found


def roles(text: str) -> str:
    """reST roles as code: ``:class:`~a.b.C` `` becomes `` `C` ``."""
    text = re.sub(r":\w+:`~(?:[\w.]+\.)?(\w+)`", r"`\1`", text)
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", text)


def _bare(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()


def sentence(text: str) -> str:
    text = roles(text.strip())
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '…')) else '.'}"


def attribute_docs(module: Any, cls: str) -> dict[str, str]:
    """Attribute -> the string that follows it in the source."""
    tree = ast.parse(inspect.getsource(module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)
    found: dict[str, str] = {}
    pending: list[str] = []
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            pending.append(node.target.id)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            pending.append(node.targets[0].id)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and pending:
            text = roles(" ".join(inspect.cleandoc(str(node.value.value)).split()))
            found |= dict.fromkeys(pending, text)
            pending = []
        else:
            pending = []
    return found


def source_link(found: Any) -> str:
    module = importlib.import_module(found.__module__)
    path = Path(module.__file__ or "").resolve()
    if not path.is_relative_to(ROOT):
        return f"`{found.__module__}`"
    relative = path.relative_to(ROOT).as_posix()
    return f"[{relative}]({REPOSITORY}/{relative})"
