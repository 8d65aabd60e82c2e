"""Texts through the `datasets` library: hub ids, and local text, CSV, JSON and Parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fb_nlp_tasks.tasks.texts import TextData, from_columns
from fusionbench_core import ConfigError, CorruptFile, NotFound, Offline

_BUILDERS = {".txt": "text", ".csv": "csv", ".tsv": "csv", ".json": "json", ".parquet": "parquet"}


def read_datasets(
    dataset: str,
    file: Path | None,
    *,
    text_column: str,
    label_column: str,
    splits: Mapping[str, str],
    subset: str | None = None,
    revision: str | None = None,
    labels: Sequence[str] | None = None,
) -> TextData:
    """Load texts with `datasets.load_dataset`; no code of the data set's repository is run.

    Args:
        dataset: Hub id, `OWNER/NAME`.
        file: A local file instead, all of whose rows are its split `train`.
        text_column: Column of the texts.
        label_column: Column of the labels: class indices or names.
        splits: Our split -> the data set's, slices included: `{"test": "train[80%:]"}`.
        subset: Configuration of the hub data set.
        revision: Branch, tag or commit.
        labels: Names of the classes; default: what the data set says.

    Raises:
        NotFound, Offline, CorruptFile: if it cannot be loaded.
        ConfigError: if a column is missing.
    """
    columns = {}
    names: Sequence[str] = labels or ()
    for split, theirs in splits.items():
        table = _load(dataset, file, theirs, subset, revision)
        _check_columns(table, dataset, text_column=text_column, label_column=label_column)
        names = names or getattr(table.features[label_column], "names", None) or ()
        columns[split] = (table[text_column][:], table[label_column][:])
    return from_columns(columns, names)


def read_texts(
    dataset: str,
    file: Path | None,
    *,
    text_column: str,
    splits: Mapping[str, str],
    subset: str | None = None,
    revision: str | None = None,
) -> dict[str, list[str]]:
    """The same without labels: split -> texts.

    Raises:
        NotFound, Offline, CorruptFile: if it cannot be loaded.
        ConfigError: if the column is missing.
    """
    found = {}
    for split, theirs in splits.items():
        table = _load(dataset, file, theirs, subset, revision)
        _check_columns(table, dataset, text_column=text_column)
        found[split] = list(table[text_column][:])
    return found


def _check_columns(table: Any, dataset: str, **columns: str) -> None:
    for column in columns.values():
        if column not in table.column_names:
            raise ConfigError(
                f"data set {dataset!r} has no column {column!r}",
                why=f"its columns are {', '.join(table.column_names)}",
                fix=f"give {' and '.join(f'`{name}`' for name in columns)}",
            )


def _load(dataset: str, file: Path | None, split: str, subset: str | None, revision: str | None) -> Any:
    import datasets
    from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError

    try:
        if file is None:
            return datasets.load_dataset(dataset.partition("@")[0], subset, split=split, revision=revision)
        if file.suffix not in _BUILDERS:
            raise ConfigError(
                f"cannot tell the format of {file.name}",
                file=file,
                fix=f"use .jsonl, .jsonl.gz, {', '.join(_BUILDERS)}",
            )
        options: dict[str, Any] = {"delimiter": "\t"} if file.suffix == ".tsv" else {}
        return datasets.load_dataset(_BUILDERS[file.suffix], data_files=str(file), split=split, **options)
    except DatasetNotFoundError as error:
        raise NotFound(f"the hub has no data set {dataset!r}", why=_first_line(error)) from error
    except (ConnectionError, DataFilesNotFoundError) as error:
        raise Offline(
            f"data set {dataset!r} is not in the local cache, and the hub cannot be reached",
            why=_first_line(error),
            fix=f"on a machine with a network: hf download --repo-type dataset {dataset}\n"
            "then give the path of its file",
        ) from error
    except (ValueError, OSError, DatasetGenerationError) as error:
        raise CorruptFile(f"cannot load data set {dataset!r}", file=file, why=_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
