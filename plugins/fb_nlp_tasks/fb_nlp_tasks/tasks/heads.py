"""What turns a trunk into a classifier: label prompts, an expert's head, or the model's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench_core import TaskError


def embed(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean of token states `(n, length, dim)` over the mask `(n, length)`, of unit length: `(n, dim)`."""
    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    return F.normalize((states * mask).sum(1) / mask.sum(1).clamp(min=1), dim=-1)


class PromptClassifier(nn.Module):
    """`scale * cos(text, prompt)`: the zero-shot head of CLIP, for text.

    Args:
        trunk: Gives token states `(n, length, dim)`.
        head: Embedded label prompts, unit length, `(classes, dim)`; frozen, no part of the state dict.
        scale: Inverse temperature.
    """

    head: Tensor

    def __init__(self, trunk: nn.Module, head: Tensor, scale: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.scale = scale
        self.register_buffer("head", head, persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `(n, classes)` of token ids and mask, both `(n, length)`."""
        states = token_states(self.trunk(input_ids=input_ids, attention_mask=attention_mask))
        if states.shape[-1] != self.head.shape[1]:
            raise TaskError(
                f"the model has {states.shape[-1]} dimensions, the label prompts have {self.head.shape[1]}",
                fix="give the task the pre-trained encoder of this model as `encoder`",
            )
        return self.scale * embed(states, attention_mask) @ self.head.to(states.dtype).T


class ExpertClassifier(nn.Module):
    """The head of a transformers sequence classifier over any trunk of its kind, pooling included.

    Args:
        trunk: The base model, e.g. a `BertModel`.
        shell: A sequence classifier whose own trunk is `trunk`.
    """

    def __init__(self, trunk: nn.Module, shell: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.shell = shell

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `(n, classes)` of token ids and mask, both `(n, length)`."""
        return self.shell(input_ids=input_ids, attention_mask=attention_mask).logits


class OwnClassifier(nn.Module):
    """A model that gives logits by itself."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `(n, classes)` of token ids and mask, both `(n, length)`."""
        output = self.trunk(input_ids=input_ids, attention_mask=attention_mask)
        logits = output.get("logits") if isinstance(output, Mapping) else output
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise TaskError(
                f"{type(self.trunk).__name__} gives no logits of classes",
                fix="use source text_classifier, or another `head`: prompts, expert",
            )
        return logits


def token_states(output: Any) -> Tensor:
    """Token states `(n, length, dim)` of a model's output.

    Raises:
        TaskError: if it holds none.
    """
    if isinstance(output, Mapping):
        output = output.get("last_hidden_state")
    elif isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim != 3:
        raise TaskError(
            "the model gives no token states, which the label prompts are compared with",
            fix="use source text_encoder, or another `head`: expert, model",
        )
    return output


class NextTokens(nn.Module):
    """What a causal language model says of the next token, at every token but the last.

    Args:
        trunk: A transformers model with a language-modelling head.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits `(n, length - 1, vocabulary)` of token ids `(n, length)`, none of them padding."""
        output = self.trunk(input_ids=input_ids, use_cache=False)
        logits = getattr(output, "logits", None)
        if logits is None or logits.shape[:-1] != input_ids.shape:
            raise TaskError(
                f"{type(self.trunk).__name__} gives no logits of the next tokens",
                fix="read the models by `source: causal_lm`",
            )
        return logits[:, :-1]
