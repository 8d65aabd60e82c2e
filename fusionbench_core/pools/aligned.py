"""Models of different vocabularies as models of one: every row of an embedding follows its token."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import InstanceOf
from torch import Tensor, nn

from fusionbench_core.checkpoints import Checkpoint
from fusionbench_core.checkpoints.rows import Fill, RowMap, RowsCheckpoint
from fusionbench_core.errors import IncompatibleModels, MissingCapability
from fusionbench_core.pools.source import ModelSource
from fusionbench_core.pools.tokenizer import BASE, MEAN, UNION, ZERO, TokenizerConfig
from fusionbench_core.pools.vocabulary import Vocabulary
from fusionbench_core.records import SourceRecord
from fusionbench_core.suggest import did_you_mean

CONFIG = "config.json"
_SHOWN = 5

Row = tuple[str, int]
"""Name of a model, and a row of it."""


class VocabularyAlignment:
    """One vocabulary for several models. Nothing is opened before something is asked.

    Args:
        config: What the result's vocabulary is.
        sources: Name -> source, of the base (as `base`) and the models.
        reference: Name of the one whose architecture the result has.
    """

    def __init__(self, config: TokenizerConfig, sources: Mapping[str, ModelSource], reference: str) -> None:
        self._config, self.sources = config, dict(sources)
        self._chosen = reference if config.source == UNION else config.source

    @cached_property
    def vocabularies(self) -> dict[str, Vocabulary]:
        """Name -> vocabulary.

        Raises:
            MissingCapability: if a source knows of no tokens.
        """
        return {name: _vocabulary(name, source) for name, source in self.sources.items()}

    @cached_property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """Name -> the weights as they are."""
        return {name: source.open() for name, source in self.sources.items()}

    @property
    def chosen(self) -> Vocabulary:
        """The vocabulary whose ids stay as they are."""
        return self.vocabularies[self._chosen]

    @cached_property
    def tokens(self) -> dict[str, int]:
        """Token -> row of the result."""
        tokens = dict(self.chosen.tokens)
        if self._config.source == UNION:
            free = max(tokens.values(), default=-1) + 1
            for name in sorted(self.vocabularies):
                others = self.vocabularies[name].tokens
                for token in sorted(others, key=lambda token: (others[token], token)):
                    if token not in tokens:
                        tokens[token], free = free, free + 1
        unknown = [token for token in self._config.tokens if token not in tokens]
        if unknown:
            raise IncompatibleModels(
                f"the result's tokenizer has no token {unknown[0]!r}",
                config=f"modelpool.tokenizer.tokens.{unknown[0]}",
                fix=did_you_mean(unknown[0], list(tokens)) or "write the token as the tokenizer does",
            )
        return tokens

    @property
    def _in_order(self) -> list[str]:
        return sorted(self.tokens, key=self.tokens.__getitem__)

    @cached_property
    def rows(self) -> int:
        """Rows of the result."""
        count = max(self.tokens.values(), default=-1) + 1
        if self._config.padding == "keep":
            count = max(count, self._rows_of(self._chosen))
        multiple = self._config.pad_to_multiple_of or 1
        return -(-count // multiple) * multiple

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What becomes of tokens that not all models have."""
        notes = []
        for name in sorted(self.vocabularies):
            own = self.vocabularies[name].tokens
            lost = sorted((token for token in own if token not in self.tokens), key=own.__getitem__)
            if lost:
                notes.append(f"the tokenizer of {self._chosen} lacks {_listed(lost)} of {name}: left out")
            lacks = [token for token in self._in_order if self._row(name, token) is None]
            if lacks:
                notes.append(f"{name} gets rows for {_listed(lacks)}")
        nowhere = [token for token in self._in_order if not self._source_rows(token)]
        if nowhere:
            notes.append(f"zero in all models, as none has a row: {_listed(nowhere)}")
        return tuple(notes)

    def view(self, name: str) -> Checkpoint:
        """The weights of a model with the rows of the result."""
        inner, vocabulary = self.checkpoints[name], self.vocabularies[name]
        own = torch.full((self.rows,), -1, dtype=torch.int64)
        fills: dict[tuple[str, ...], list[tuple[int, list[int]]]] = defaultdict(list)
        taken = set(vocabulary.tokens.values())
        count = self._rows_of(name)
        kept = min(count, self._rows_of(self._chosen)) if self._config.padding == "keep" else 0
        named = {row: token for token, row in sorted(self.tokens.items(), reverse=True)}
        for row in range(self.rows):
            token = named.get(row)
            if token is None:
                here = row if row < kept and row not in taken else None
                found: Sequence[Row] = ()
            else:
                rule = self._config.tokens.get(token)
                here = None if rule and rule.force else self._row(name, token)
                found = self._source_rows(token) if here is None else ()
            if here is None:
                fills[tuple(donor for donor, _ in found)].append((row, [one for _, one in found]))
            else:
                own[row] = here
        if not fills and count == self.rows and torch.equal(own, torch.arange(count)):
            return inner
        made = tuple(self._fill(donors, rows) for donors, rows in sorted(fills.items()))
        return RowsCheckpoint(inner, vocabulary.tensors, RowMap(own, made))

    def files(self) -> tuple[Sequence[Path], Mapping[str, str]]:
        """Files to copy, and texts to write, that make up the result's tokenizer."""
        if self.tokens == self.chosen.tokens:
            return self.chosen.files, {}
        others = [self.vocabularies[name] for name in sorted(self.vocabularies) if name != self._chosen]
        return (), self.chosen.extended(self.tokens, others)

    def config_text(self, source: ModelSource) -> str | None:
        """config.json of `source` with the result's number of rows, and ids of special tokens."""
        config = _read_config(source)
        if config is None:
            return None
        section = config if "vocab_size" in config else config.get("text_config", {})
        if "vocab_size" not in section:
            raise IncompatibleModels("config.json does not say how many tokens there are", model=source.path)
        section["vocab_size"] = self.rows
        ids = _read_config(self.sources[self._chosen]) or {}
        for key, value in ids.items():
            if key.endswith("_token_id"):
                config[key] = value
        return json.dumps(config, indent=2) + "\n"

    def _fill(self, donors: tuple[str, ...], rows: list[tuple[int, list[int]]]) -> Fill:
        where = _numbers([row for row, _ in rows])
        parts = [
            (self.checkpoints[donor], _numbers([each[number] for _, each in rows]))
            for number, donor in enumerate(donors)
        ]
        return Fill(where, tuple(parts))

    def _source_rows(self, token: str) -> Sequence[Row]:
        """The rows whose mean stands for a token where it is lacking, or a rule wants it; none: zeros."""
        rows = {name: self._row(name, token) for name in sorted(self.sources)}
        holders = [(name, row) for name, row in rows.items() if row is not None]
        rule = self._config.tokens.get(token)
        if rule is None:
            of_base = [holder for holder in holders if holder[0] == BASE]
            return of_base or holders
        if rule.source == ZERO:
            return ()
        if rule.source == MEAN:
            return holders
        row = self._row(rule.source, rule.token or token)
        if row is None:
            raise IncompatibleModels(
                f"{rule.source} has no row for the token {rule.token or token!r}",
                config=f"modelpool.tokenizer.tokens.{token}",
                fix="name a model that has it, or write `mean` or `zero`",
            )
        return [(rule.source, row)]

    def _row(self, name: str, token: str) -> int | None:
        row = self.vocabularies[name].tokens.get(token)
        return row if row is not None and row < self._rows_of(name) else None

    def _rows_of(self, name: str) -> int:
        return self._counts[name]

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {name: self._count(name) for name in self.sources}

    def _count(self, name: str) -> int:
        checkpoint, tensors = self.checkpoints[name], self.vocabularies[name].tensors
        counts = {key: checkpoint.info(key).shape[of] for key, of in tensors.items() if key in checkpoint}
        if len(set(counts.values())) != 1:
            raise IncompatibleModels(
                "the tensors of the vocabulary have different numbers of rows",
                model=name,
                why=", ".join(f"{key}: {count}" for key, count in counts.items()) or "there are none",
            )
        return next(iter(counts.values()))


class AlignedSource(ModelSource):
    """A model of the pool, with the vocabulary that the pool has agreed on."""

    record: ClassVar[SourceRecord] = SourceRecord(
        name="aligned",
        target="fusionbench_core.pools.aligned:AlignedSource",
        summary="a model with the vocabulary of its pool",
    )

    model: InstanceOf[ModelSource]
    name: str
    alignment: InstanceOf[VocabularyAlignment]

    def open(self) -> Checkpoint:
        return self.alignment.view(self.name)

    def skeleton(self) -> nn.Module:
        return self.model.resized(self.alignment.rows)

    def commit(self) -> str | None:
        return self.model.commit()

    def assets(self) -> Sequence[Path]:
        theirs, _ = self.alignment.files()
        own = set(self.alignment.vocabularies[self.name].files)
        return (*(asset for asset in self.model.assets() if asset not in own), *theirs)

    def changed_assets(self) -> Mapping[str, str]:
        config = self.alignment.config_text(self.model)
        _, texts = self.alignment.files()
        return {**self.model.changed_assets(), **texts, **({CONFIG: config} if config else {})}

    def for_artefact(self, directory: Path) -> ModelSource:
        return self.model.for_artefact(directory)


def _vocabulary(name: str, source: ModelSource) -> Vocabulary:
    vocabulary = source.vocabulary()
    if vocabulary is None:
        raise MissingCapability(
            f"source {source.record.full_name} knows of no tokens, so vocabularies cannot be aligned",
            model=name,
            config="modelpool.tokenizer",
            fix="remove `modelpool.tokenizer`, or name a source of language models",
        )
    return vocabulary


def _read_config(source: ModelSource) -> dict[str, Any] | None:
    changed = source.changed_assets().get(CONFIG)
    file = next((asset for asset in source.assets() if asset.name == CONFIG), None)
    if changed is None and file is None:
        return None
    return json.loads(changed if changed is not None else file.read_text(encoding="utf-8"))  # type: ignore[union-attr]


def _listed(tokens: Sequence[str]) -> str:
    shown = ", ".join(repr(token) for token in tokens[:_SHOWN])
    more = f" and {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else ""
    return f"{len(tokens)} token{'s' if len(tokens) > 1 else ''} ({shown}{more})"


def _numbers(values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
