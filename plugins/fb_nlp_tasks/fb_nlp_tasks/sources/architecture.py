"""What a config.json describes: a module on the meta device, and real ones with arbitrary weights."""

from __future__ import annotations

import inspect
import json
import threading
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench_core import CorruptFile, MissingCapability, NotFound, UntrustedFormat

# Building a transformers model swaps functions of torch.nn.init and puts them back afterwards; two threads
# that do so at once may leave the wrong ones in place.
_BUILDING = threading.RLock()


@dataclass(frozen=True)
class Architecture:
    """A class of models and a config.

    Attributes:
        directory: Holds config.json.
        auto: Name of the transformers auto class, e.g. `AutoModelForCausalLM`.
        trust_remote_code: Whether Python files beside the config may be run.
        pooler: Whether the model has its pooling layer, where the class leaves that open.
        untied: Whether weights that the config ties are separate all the same.
        vocab_size: Number of tokens, where it is not that of the config.
    """

    directory: Path
    auto: str
    trust_remote_code: bool = False
    pooler: bool = True
    untied: bool = False
    vocab_size: int | None = None

    @cached_property
    def meta(self) -> Any:
        """The model on the meta device: names, shapes and ties, no memory."""
        return self.fresh()

    @property
    def state(self) -> dict[str, Tensor]:
        """The model's state dict, on the meta device; tied names hold the same object."""
        return self.meta.state_dict(keep_vars=True)

    @property
    def vocab_size_of_config(self) -> int:
        """Number of tokens as config.json says it."""
        return self.config().get_text_config().vocab_size

    def ties(self) -> list[tuple[str, ...]]:
        """Groups of names that share one tensor, in the order of the state dict."""
        groups: dict[int, list[str]] = {}
        for name, tensor in self.state.items():
            groups.setdefault(id(tensor), []).append(name)
        return [tuple(names) for names in groups.values() if len(names) > 1]

    def without_pooler(self) -> Architecture | None:
        """The same without a pooling layer, or None where the class always has what it has."""
        optional = "add_pooling_layer" in inspect.signature(type(self.meta).__init__).parameters
        return replace(self, pooler=False) if optional and self.pooler else None

    def skeleton(self) -> nn.Module:
        """A fresh model on the CPU in fp32 and eval mode: weights zero, computed buffers right."""
        model = self.fresh()
        with _BUILDING, torch.no_grad():
            model.to_empty(device="cpu")
            if not self.untied:
                model.tie_weights()
            for module in model.modules():
                module.__dict__.pop("_is_hf_initialized", None)
            for tensor in model.state_dict(keep_vars=True).values():
                tensor.zero_()
                tensor._is_hf_initialized = True
            # With every stored tensor marked as done, this fills only the buffers that are not stored.
            model.initialize_weights()
        return model.eval()

    def fresh(self) -> Any:
        """A new model on the meta device, in eval mode."""
        import transformers

        config = self.config()
        if self.untied:
            config.tie_word_embeddings = False
        if self.vocab_size is not None:
            config.get_text_config().vocab_size = self.vocab_size
        options = {} if self.pooler else {"add_pooling_layer": False}
        auto = getattr(transformers, self.auto)
        try:
            with _BUILDING, torch.device("meta"):
                model = auto.from_config(
                    config, dtype=torch.float32, trust_remote_code=self.trust_remote_code, **options
                )
        except ValueError as error:
            raise MissingCapability(
                f"transformers has no {self.auto} for model type {config.model_type!r}",
                model=self.directory,
                why=str(error).strip().splitlines()[0],
                fix="use the source for its kind: text_encoder, causal_lm, seq2seq_lm or text_classifier",
            ) from error
        return model.eval()

    def config(self) -> Any:
        """A fresh transformers config.

        Raises:
            NotFound, CorruptFile: if config.json is missing or malformed.
            UntrustedFormat: if it asks for Python code beside it, and that is not trusted.
            MissingCapability: if this version of transformers does not know the model type, or the
                weights are quantised.
        """
        import transformers

        raw = read_config(self.directory)
        if "quantization_config" in raw:
            raise MissingCapability(
                "quantised weights cannot be merged",
                model=self.directory,
                why="its config.json has a quantization_config",
                fix="use the model's original weights, or dequantise and save it first",
            )
        try:
            return transformers.AutoConfig.from_pretrained(
                self.directory, trust_remote_code=self.trust_remote_code, local_files_only=True
            )
        except (ValueError, OSError, KeyError, TypeError) as error:
            if raw.get("auto_map") and not self.trust_remote_code:
                raise UntrustedFormat(
                    f"model type {raw.get('model_type')!r} is defined by Python code beside its weights",
                    model=self.directory,
                    why="running that code is off unless you ask for it",
                    fix="read the *.py files, then say trust_remote_code: true for this model",
                ) from error
            raise MissingCapability(
                f"transformers {transformers.__version__} cannot read the config of model type "
                f"{raw.get('model_type')!r}",
                model=self.directory,
                why=str(error).strip().splitlines()[0],
                fix="upgrade transformers, if the model is newer than it",
            ) from error


def read_config(directory: Path) -> dict[str, Any]:
    """The raw content of config.json.

    Raises:
        NotFound: if there is none.
        CorruptFile: if it is not a JSON object.
    """
    file = directory / "config.json"
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(
            f"no config.json in {directory}", fix="point to a directory saved with `save_pretrained`"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CorruptFile("config.json is not valid JSON", file=file, why=str(error)) from error
    if not isinstance(raw, dict):
        raise CorruptFile("config.json is not a JSON object", file=file)
    return raw
