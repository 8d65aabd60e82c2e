"""How a task declares where its texts come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from fb_nlp_tasks.tasks.texts import SPLITS, find_file

_LINES = (".jsonl", ".jsonl.gz")


class DeclaredTexts(BaseModel):
    """Parameters of tasks on texts; a base beside that of the task."""

    dataset: str = Field(
        description="an embedded data set, a .jsonl[.gz], .csv, .json or .parquet file, or a hub id"
    )
    text_column: str = Field(
        default="text", description="column of the texts, in CSV, Parquet and hub data sets"
    )
    splits: Mapping[Literal["train", "validation", "test"], str] | None = Field(
        default=None,
        description="our split -> split of the hub data set or file, slices included: {test: 'train[80%:]'}",
    )
    subset: str | None = Field(default=None, description="configuration of a hub data set, e.g. sst2 of glue")
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub data set")

    @property
    def file(self) -> Path | None:
        """The data set's file; None for a hub id."""
        return find_file(self.dataset)

    @property
    def lines(self) -> Path | None:
        """The file if it is one of JSON lines, whose splits are in it."""
        file = self.file
        return file if file is not None and file.name.endswith(_LINES) else None

    @property
    def their_splits(self) -> dict[str, str]:
        """Our split -> the data set's."""
        return {**self.splits} if self.splits else {split: split for split in SPLITS}
