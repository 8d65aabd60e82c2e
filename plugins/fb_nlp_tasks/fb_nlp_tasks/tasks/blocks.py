"""Running text as blocks of token ids, all of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from fusionbench_core import Batch


@dataclass(frozen=True)
class BlockSplit:
    """A split as blocks.

    Attributes:
        ids: Token ids, `(blocks, length)`.
    """

    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def batches(
        self, *, labelled: bool, limit: int | None, seed: int | None, batch_size: int
    ) -> Iterator[Batch]:
        """Batches of `input_ids` `(n, length)`; labels are the tokens that follow, `(n, length - 1)`.

        The first `limit` blocks in their order; with a seed, `limit` blocks in random order.
        """
        order = torch.arange(len(self))
        if seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        for rows in order[: limit or len(self)].split(batch_size):
            ids = self.ids[rows]
            yield Batch({"input_ids": ids}, ids[:, 1:].contiguous() if labelled else None, rows)


def blocks(tokenizer: Any, texts: Sequence[str], length: int) -> BlockSplit:
    """All texts behind one another, each ended by the tokenizer's end of text if it has one, cut into blocks.

    What is left of the last block is left out, as in transformers' examples of language modelling.
    """
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    # Not verbose: a text longer than what models read is no mistake, as it is cut.
    each = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    ids = torch.tensor(list(chain.from_iterable([*one, *end] for one in each)), dtype=torch.long)
    count = len(ids) // length
    return BlockSplit(ids[: count * length].view(count, length))
