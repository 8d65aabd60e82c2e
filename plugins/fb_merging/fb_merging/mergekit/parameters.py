"""From the parameters of all blocks of a document to those of one method here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fb_merging.mergekit.document import Document, Source
from fb_merging.mergekit.methods import METHODS, MergeMethod, Parameter, finished
from fb_merging.mergekit.rules import Part, Rule, constant, rules_of
from fusionbench_core import ConfigError, did_you_mean


@dataclass(frozen=True)
class Piece:
    """A block as it is merged: its models in the order of the pool's, and where in the result it is.

    Attributes:
        names: The pool's names of its models.
        sources: The same models as the document has them.
        scopes: Parameters of the block, from the closest to the most general.
        part: Where in the result it is.
        where: Key of the block, for messages.
    """

    names: tuple[str, ...]
    sources: tuple[Source, ...]
    scopes: tuple[Mapping[str, Any], ...]
    part: Part
    where: str


def check_names(document: Document) -> list[tuple[str, str]]:
    """Remarks on parameters that mergekit would ignore.

    Raises:
        ConfigError: if a parameter looks misspelt.
    """
    method = METHODS[document.method]
    known = {parameter.theirs: parameter for parameter in method.parameters}
    anywhere = {parameter.theirs for each in METHODS.values() for parameter in each.parameters}
    remarks: dict[str, str] = {}
    for block in document.blocks:
        scopes = [(block.where, scope) for scope in block.scopes]
        sources = [
            (f"{block.where}: {source.model.label}", source.parameters, True) for source in block.sources
        ]
        for where, scope, of_source in [*((w, s, False) for w, s in scopes), *sources]:
            for name in scope:
                if name in known and (known[name].of_source or not of_source):
                    continue
                hint = did_you_mean(name, known)
                if name not in anywhere and hint:
                    raise ConfigError(
                        f"{document.method} has no parameter {name!r}",
                        config=f"{where}: parameters",
                        why="mergekit would ignore it",
                        fix=hint,
                    )
                remarks[f"{where}: {name}"] = (
                    "mergekit reads it from the slice or the whole config, and ignores it here"
                    if name in known
                    else f"{document.method} has no such parameter; mergekit ignores it"
                )
    return [("method", f"{where}: {remark}") for where, remark in remarks.items()]


def section_of(document: Document, pieces: Sequence[Piece], has_base: bool) -> dict[str, Any]:
    """The `method` section.

    Raises:
        ConfigError: if a parameter is missing or wrong, or cannot differ here where it does.
    """
    theirs = METHODS[document.method]
    fixed: dict[str, Any] = {}
    varying: dict[str, Any] = {}
    for parameter in theirs.parameters:
        kind, value = _one(document, parameter, pieces)
        if parameter.ours is None:
            continue
        (fixed if kind == "fixed" else varying)[parameter.ours] = value
    extra = {**theirs.always, **(theirs.with_base if has_base else {})}
    name, fixed = finished(document.method, {**fixed, **extra})
    among = _among(pieces)
    if not varying and not among:
        return {"name": name, **fixed}
    _move_weights(fixed, varying, theirs, among)
    return {
        "name": "varied",
        "method": {"name": name, **fixed},
        **({"parameters": varying} if varying else {}),
        **({"among": among} if among else {}),
    }


def _one(document: Document, parameter: Parameter, pieces: Sequence[Piece]) -> tuple[str, Any]:
    """Whether a parameter is fixed or varies, and what it is."""
    if not parameter.each:
        rules = _joined([(piece, _shared(parameter, piece)) for piece in pieces])
        if constant(rules):
            return "fixed", rules[0]["value"]
        _refuse_unless_it_varies(document, parameter)
        return "varying", _short(rules)
    each: dict[str, list[tuple[Piece, list[Rule]]]] = {}
    for piece in pieces:
        for name, source in zip(piece.names, piece.sources):
            where = f"{piece.where}: {source.model.label}"
            each.setdefault(name, []).append(
                (piece, rules_of(parameter, (source.parameters, *piece.scopes), where))
            )
    joined = {name: _joined(found) for name, found in each.items()}
    if all(constant(rules) for rules in joined.values()):
        values = {name: rules[0]["value"] for name, rules in joined.items()}
        alike = len(set(values.values())) == 1 and not parameter.by_name
        return "fixed", next(iter(values.values())) if alike else values
    _refuse_unless_it_varies(document, parameter)
    return "varying", {name: _short(rules) for name, rules in joined.items()}


def _short(rules: list[Rule]) -> Any:
    """The rules as people would write them."""
    if constant(rules):
        return rules[0]["value"]
    return rules[0] if len(rules) == 1 else rules


def _shared(parameter: Parameter, piece: Piece) -> list[Rule]:
    """The rules for a parameter that all models of a block share here."""
    if not parameter.of_source:
        return rules_of(parameter, piece.scopes, piece.where)
    each = [rules_of(parameter, (s.parameters, *piece.scopes), piece.where) for s in piece.sources]
    if any(rules != each[0] for rules in each):
        raise ConfigError(
            f"`{parameter.theirs}` differs between the models",
            config=piece.where,
            why=f"here the method has one {parameter.ours} for all models",
            fix="give all models the same, or merge them in stages",
        )
    return each[0]


def _joined(found: Sequence[tuple[Piece, list[Rule]]]) -> list[Rule]:
    """The rules of all blocks, each for its own part; without parts where those are all the same."""
    first = found[0][1]
    gradients = any("gradient" in rule for _, rules in found for rule in rules)
    if all(rules == first for _, rules in found) and (len(found) == 1 or not gradients):
        whole = len(found) > 1 or found[0][0].part.is_all
        if whole or constant(first):
            return first
    return [limited for piece, rules in found for rule in rules for limited in piece.part.limit(rule)]


def _among(pieces: Sequence[Piece]) -> list[Rule]:
    """Rules for which models are merged where, unless all are everywhere."""
    if all(set(piece.names) == set(pieces[0].names) for piece in pieces):
        return []
    return [limited for piece in pieces for limited in piece.part.limit({"value": list(piece.names)})]


def _move_weights(
    fixed: dict[str, Any], varying: dict[str, Any], theirs: MergeMethod, among: list[Rule]
) -> None:
    """Where not all models are merged everywhere, `varied` takes of values by model those it needs."""
    for parameter in theirs.parameters:
        if among and parameter.ours and isinstance(fixed.get(parameter.ours), dict) and parameter.each:
            varying[parameter.ours] = fixed.pop(parameter.ours)


def _refuse_unless_it_varies(document: Document, parameter: Parameter) -> None:
    if not parameter.varies:
        raise ConfigError(
            f"`{parameter.theirs}` of {document.method} differs between tensors",
            why="here it is one for the whole merge",
            fix=f"give one {parameter.theirs} under `parameters` of the whole config",
        )
