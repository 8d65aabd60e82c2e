"""The vocabulary of a text model, as transformers' tokenizer and its architecture say it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fb_nlp_tasks.sources.architecture import Architecture
from fusionbench_core import CorruptFile, MissingCapability, NotFound, Vocabulary

_TOKENIZER = "tokenizer.json"
_SETTINGS = "tokenizer_config.json"
_GENERATION = "generation_config.json"


class TextVocabulary(Vocabulary):
    """Read from the files of a tokenizer.

    Args:
        directory: Holds them.
        architecture: Of the model.
        files: Those assets of the model that are the tokenizer's, or name ids of tokens.
    """

    def __init__(self, directory: Path, architecture: Architecture, files: Sequence[Path]) -> None:
        self._directory, self._architecture = directory, architecture
        self.files = tuple(files)

    @cached_property
    def tokens(self) -> Mapping[str, int]:  # type: ignore[override]
        """Token -> id."""
        return self._tokenizer.get_vocab()

    @cached_property
    def tensors(self) -> Mapping[str, int]:  # type: ignore[override]
        """The tensors whose shape changes with the size of the vocabulary, whatever they are called."""
        size = self._architecture.vocab_size_of_config
        larger = replace(self._architecture, vocab_size=size + 1).state
        return {
            name: dimension
            for name, tensor in self._architecture.state.items()
            for dimension, (less, more) in enumerate(zip(tensor.shape, larger[name].shape))
            if less != more
        }

    def extended(self, tokens: Mapping[str, int], others: Sequence[Vocabulary]) -> Mapping[str, str]:
        with tempfile.TemporaryDirectory() as scratch:
            self._tokenizer.save_pretrained(scratch)
            place = Path(scratch)
            file = place / _TOKENIZER
            if not file.is_file():
                raise self._refused("it has no tokenizer.json")
            raw = json.loads(file.read_text(encoding="utf-8"))
            new = {token: row for token, row in tokens.items() if token not in self.tokens}
            descriptions = [other.description for other in others if isinstance(other, TextVocabulary)]
            self._add(raw, new, descriptions)
            file.write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
            self._add_settings(place / _SETTINGS, raw)
            if dict(_load(place, False).get_vocab()) != dict(tokens):
                raise self._refused("with the tokens added it gives other ids than the weights have")
            texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(place.iterdir())}
        kept = [path for path in self.files if path.name == _GENERATION]
        return {**texts, **{path.name: path.read_text(encoding="utf-8") for path in kept}}

    @property
    def description(self) -> dict[str, Any]:
        """What tokenizer.json says; empty without one."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return json.loads(backend.to_str()) if backend is not None else {}

    @cached_property
    def _tokenizer(self) -> Any:
        if all(path.name.startswith((_GENERATION, "chat_template")) for path in self.files):
            raise NotFound(
                "there is no tokenizer beside the weights",
                model=self._directory,
                fix="copy its files there (tokenizer.json, tokenizer_config.json)",
            )
        return _load(self._directory, self._architecture.trust_remote_code)

    def _add(self, raw: dict[str, Any], new: Mapping[str, int], others: Sequence[dict[str, Any]]) -> None:
        """Put tokens into a description: added ones as what they are elsewhere, others into the model."""
        added = {entry["content"]: entry for other in reversed(others) for entry in other["added_tokens"]}
        model = raw["model"]
        words = model.get("vocab")
        if not isinstance(words, dict):
            if not new.keys() <= added.keys():
                raise self._refused(f"a {model.get('type')} model takes no words in")
        else:
            # Ids of added tokens are only believed where the model knows them.
            words.update({entry["content"]: entry["id"] for entry in raw["added_tokens"]})
            words.update(new)
        raw["added_tokens"] += [{**added[token], "id": row} for token, row in new.items() if token in added]
        if model.get("type") == "BPE":
            known = {tuple(merge) for merge in model["merges"]}
            made = {token for token in new if token not in added}
            model["merges"] += _merges(others, made, known)

    @staticmethod
    def _add_settings(file: Path, raw: dict[str, Any]) -> None:
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if "added_tokens_decoder" in settings:
            entries = {str(entry["id"]): dict(entry) for entry in raw["added_tokens"]}
            for entry in entries.values():
                del entry["id"]
            settings["added_tokens_decoder"] = entries
            file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _refused(self, why: str) -> MissingCapability:
        return MissingCapability(
            "this tokenizer cannot take in tokens of others",
            model=self._directory,
            why=why,
            fix="choose one tokenizer instead: modelpool.tokenizer=base, or a model's name",
        )


def _merges(others: Sequence[dict[str, Any]], made: set[str], known: set[tuple[str, ...]]) -> list[list[str]]:
    """Merges of other tokenizers that make new tokens, in their order; they come after the own ones."""
    found: dict[tuple[str, ...], None] = {}
    for other in others:
        for merge in other["model"].get("merges") or ():
            pair = tuple(merge)
            if "".join(pair) in made and pair not in known:
                found[pair] = None
    return [list(pair) for pair in found]


def _load(directory: Path, trust_remote_code: bool) -> Any:
    import transformers

    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(directory), trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # malformed files make the loaders raise anything
        raise CorruptFile(
            "the tokenizer cannot be read", directory=directory, why=str(error).strip().splitlines()[0]
        ) from error
