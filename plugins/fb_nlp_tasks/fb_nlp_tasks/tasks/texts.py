"""Labelled texts in splits, and where they come from."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from fusionbench_core import ConfigError, CorruptFile, NotFound, resolve_path

EMBEDDED = Path(__file__).parent.parent / "embedded" / "data"
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TextSplit:
    """One split.

    Attributes:
        texts: The texts.
        labels: One class index a text.
    """

    texts: Sequence[str]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def sha256(self) -> str:
        """Hash of texts and labels in order, independent of how they are stored."""
        digest = hashlib.sha256()
        for text, label in zip(self.texts, self.labels):
            digest.update(json.dumps([label, text], ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class TextData:
    """A data set.

    Attributes:
        splits: Name -> split.
        labels: Names of the classes, by index; empty if unknown.
        card: Facts about it: title, source, licence, prompts, max_length, …; may be empty.
    """

    splits: Mapping[str, TextSplit]
    labels: tuple[str, ...] = ()
    card: Mapping[str, Any] = field(default_factory=dict)


def embedded_names() -> tuple[str, ...]:
    """Names of the data sets inside this package."""
    return tuple(sorted(file.name.removesuffix(".jsonl.gz") for file in EMBEDDED.glob("*.jsonl.gz")))


def find_file(dataset: str) -> Path | None:
    """The file of a data set: embedded, local or in a plugin; None for a hub id.

    Raises:
        NotFound: if there is nothing by that name.
    """
    if "/" not in dataset and "." not in dataset:
        file = EMBEDDED / f"{dataset}.jsonl.gz"
        if file.is_file():
            return file
        raise NotFound(
            f"there is no embedded data set {dataset!r}",
            why=f"there are: {', '.join(embedded_names())}",
            fix="use one of them, a path to a .jsonl, .csv or .parquet file, or a hub id OWNER/NAME",
        )
    return resolve_path(dataset)


def read_jsonl(file: Path, labels: Sequence[str] | None = None) -> TextData:
    """Read lines `{"split": …, "text": …, "label": …}`, gzipped or not, and the card beside them.

    Labels are class indices, or names that `labels` or the card lists.

    Raises:
        CorruptFile: if a line is malformed, or a label is none of the classes.
    """
    card = read_card(file)
    names = tuple(labels or card.get("labels") or ())
    index = {name: number for number, name in enumerate(names)}
    texts: dict[str, list[str]] = {}
    classes: dict[str, list[int]] = {}
    for number, record in _records(file):
        try:
            split, text, label = record["split"], record["text"], record["label"]
            label = index[label] if isinstance(label, str) else label
            if not isinstance(text, str) or split not in SPLITS or type(label) is not int:
                raise ValueError(f"split {split!r}, label {label!r}, text of type {type(text).__name__}")
            if label < 0 or (names and label >= len(names)):
                raise ValueError(f"label {label} is none of the {len(names)} classes")
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFile(
                f"line {number} is not a labelled text",
                file=file,
                why=repr(error),
                fix='write lines like {"split": "test", "text": "…", "label": 0}',
            ) from error
        texts.setdefault(split, []).append(text)
        classes.setdefault(split, []).append(label)
    return TextData({split: TextSplit(texts[split], classes[split]) for split in texts}, names, card)


def read_running(file: Path, column: str = "text") -> dict[str, list[str]]:
    """Read lines `{"split": …, "text": …}`, gzipped or not; labels are not looked at. Split -> texts.

    Raises:
        CorruptFile: if a line is malformed.
    """
    texts: dict[str, list[str]] = {}
    for number, record in _records(file):
        split, text = (record.get(key) for key in ("split", column)) if isinstance(record, dict) else (0, 0)
        if split not in SPLITS or not isinstance(text, str):
            raise CorruptFile(
                f"line {number} is no text of a split",
                file=file,
                fix=f'write lines like {{"split": "test", "{column}": "…"}}',
            )
        texts.setdefault(split, []).append(text)
    return texts


def from_columns(
    columns: Mapping[str, tuple[Sequence[str], Sequence[Any]]], labels: Sequence[str]
) -> TextData:
    """Data whose labels are class indices or names, as a data-set library gives them.

    Args:
        columns: Split -> texts and labels.
        labels: Names of the classes; may be empty, then names are sorted as they occur.

    Raises:
        ConfigError: if a label is none of `labels`.
    """
    found = [label for _, values in columns.values() for label in values]
    names = tuple(labels)
    if not names and any(isinstance(label, str) for label in found):
        names = tuple(sorted({str(label) for label in found}))
    index: dict[Any, int] = {name: number for number, name in enumerate(names)}
    unknown = {label for label in found if isinstance(label, str) and label not in index}
    if unknown:
        raise ConfigError(
            f"label {min(unknown)!r} is none of the task's labels",
            labels=", ".join(names),
            fix="correct `labels`",
        )
    splits = {
        split: TextSplit(list(texts), [index[v] if isinstance(v, str) else int(v) for v in values])
        for split, (texts, values) in columns.items()
    }
    return TextData(splits, names)


def _records(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8") as f
        ):
            for number, line in enumerate(f, 1):
                if line.strip():
                    yield number, json.loads(line)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise CorruptFile("the data file cannot be read", file=file, why=str(error)) from error


def read_card(file: Path) -> dict[str, Any]:
    """The facts in the .json file beside a .jsonl file; empty without one.

    Raises:
        CorruptFile: if it is not valid JSON.
    """
    stem = file.name.removesuffix(".gz").removesuffix(".jsonl")
    card = file.with_name(f"{stem}.json")
    if not card.is_file():
        return {}
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptFile("the card is not valid JSON", file=card, why=str(error)) from error
    return content if isinstance(content, dict) else {}


def canonical(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Canonical JSON lines of records: what the cards' split hashes are taken of."""
    encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode
    return "".join(encode(dict(record)) + "\n" for record in records).encode()
