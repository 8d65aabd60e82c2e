"""The contract of vocabularies: what a model source says of its tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path


class Vocabulary(ABC):
    """The tokens of a model, and the tensors that hold something for each of them.

    Attributes:
        tokens: Token -> its id, added and special tokens included.
        tensors: Name of an embedding, head or bias -> its dimension that counts tokens. Tensors may be
            longer than there are tokens: what lies beyond them, or between, is padding.
        files: Assets of the model that belong to the tokenizer, or name ids of tokens.
    """

    tokens: Mapping[str, int]
    tensors: Mapping[str, int]
    files: Sequence[Path]

    @abstractmethod
    def extended(self, tokens: Mapping[str, int], others: Sequence[Vocabulary]) -> Mapping[str, str]:
        """File name -> text of this tokenizer, knowing all of `tokens`.

        Args:
            tokens: This vocabulary's own, at the same ids, and more, at ids that follow.
            others: Vocabularies that say what kind of tokens the additional ones are.

        Raises:
            MissingCapability: if such a tokenizer cannot take tokens in.
        """
