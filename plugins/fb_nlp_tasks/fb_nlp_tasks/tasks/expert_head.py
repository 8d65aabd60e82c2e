"""The head of a saved sequence classifier, over another trunk of the same kind."""

from __future__ import annotations

import torch
from torch import nn

from fb_nlp_tasks.sources.text_models import TextClassifier
from fb_nlp_tasks.tasks.heads import ExpertClassifier
from fusionbench_core import IncompatibleModels, StateDictCheckpoint


def expert_classifier(expert: TextClassifier, trunk: nn.Module, pad: int) -> ExpertClassifier:
    """`trunk` under the head of `expert`; logits are what the expert's class makes of the trunk's output.

    Args:
        expert: The classifier whose head is used.
        trunk: A base model of the same kind; not copied.
        pad: Token id of padding, for classes that look for the last token.

    Raises:
        IncompatibleModels: if the trunk has another width than the expert's.
    """
    shell = expert.described.fresh()
    prefix = shell.base_model_prefix
    own = getattr(shell, prefix)
    if _width(trunk) not in (None, _width(own)):
        raise IncompatibleModels(
            f"the head of {type(shell).__name__} does not fit on {type(trunk).__name__}",
            why=f"its trunk gives {_width(own)} dimensions, this one {_width(trunk)}",
            expert=expert.path,
            fix="give `head_from` a classifier fine-tuned from the same base",
        )
    setattr(shell, prefix, trunk)
    shell.load_state_dict(head_tensors(expert), strict=False, assign=True)
    for name, child in shell.named_children():
        if name != prefix:
            child.requires_grad_(False).eval()
    if shell.config.pad_token_id is None:
        shell.config.pad_token_id = pad
    return ExpertClassifier(trunk, shell)


def head_tensors(expert: TextClassifier) -> dict[str, torch.Tensor]:
    """The tensors outside the expert's trunk, fp32."""
    checkpoint = expert.open()
    prefix = f"{expert.described.meta.base_model_prefix}."
    return {key: checkpoint.tensor(key).float() for key in checkpoint if not key.startswith(prefix)}


def head_hash(expert: TextClassifier) -> str:
    """Hash of the head's tensors."""
    return StateDictCheckpoint(head_tensors(expert)).fingerprint()


def _width(module: nn.Module) -> int | None:
    """Dimension of the token states, where the module has a config that says it."""
    return getattr(getattr(module, "config", None), "hidden_size", None)
