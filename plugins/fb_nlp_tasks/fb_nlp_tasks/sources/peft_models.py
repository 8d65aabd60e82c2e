"""Models that are a base and a LoRA adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from fb_nlp_tasks.sources import examples
from fb_nlp_tasks.sources.adapter import CONFIG, read_adapter, read_adapter_config
from fb_nlp_tasks.sources.aligned import AlignedCheckpoint, align
from fb_nlp_tasks.sources.architecture import Architecture
from fb_nlp_tasks.sources.hub import locate
from fb_nlp_tasks.sources.lora import LoraCheckpoint
from fb_nlp_tasks.sources.text_models import BY_NAME, RECORDS, TransformersTextSource, tokenizer_files
from fb_nlp_tasks.sources.vocabulary import TextVocabulary
from fusionbench_core import (
    ConfigError,
    FusionError,
    IncompatibleModels,
    ModelSource,
    hub_commit,
    implements,
    open_checkpoint,
    resolve_path,
)

_SOURCE_OF_TASK = {
    "FEATURE_EXTRACTION": "text_encoder",
    "CAUSAL_LM": "causal_lm",
    "SEQ_2_SEQ_LM": "seq2seq_lm",
    "SEQ_CLS": "text_classifier",
}
"""peft's task_type -> the source of its base."""


@implements(RECORDS["peft"])
class PeftSource(ModelSource):
    """A LoRA adapter over a base model, as if it were merged into it.

    Plain LoRA is exact: ranks and alphas by module, rank-stabilised scaling, biases, embeddings, and
    modules that were trained whole. DoRA and other kinds of adapters are refused.
    """

    base: str | None = Field(
        default=None, description="the base model; default: the path or hub id that adapter_config.json names"
    )
    base_source: Literal["text_encoder", "causal_lm", "seq2seq_lm", "text_classifier"] | None = Field(
        default=None,
        description="kind of base; default: by the adapter's task_type, else by the base's config.json",
    )
    revision: str | None = Field(
        default=None, description="branch, tag or commit of the adapter, if on the hub"
    )
    base_revision: str | None = Field(
        default=None, description="branch, tag or commit of the base, if on the hub"
    )

    @classmethod
    def example(cls, directory: Path) -> Mapping[str, str]:
        examples.write_adapter(directory)
        return {"path": str(directory)}

    @classmethod
    def example_state(cls, directory: Path) -> Mapping[str, Tensor]:
        return examples.merged(directory)

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether `path` is a local directory with an adapter_config.json."""
        try:
            directory = resolve_path(path)
        except FusionError:
            return False
        return directory is not None and (directory / CONFIG).is_file()

    @cached_property
    def directory(self) -> Path:
        """Where the adapter is; downloads a hub id on first use."""
        return locate(self.path, self.revision)

    @cached_property
    def base_model(self) -> TransformersTextSource:
        """The source of the base.

        Raises:
            ConfigError: if neither `base` nor the adapter names one, or its kind cannot be told.
        """
        config = read_adapter_config(self.directory)
        path = self.base or config.get("base_model_name_or_path")
        if not path:
            raise ConfigError(
                "the adapter does not say which base it belongs to", adapter=self.directory, fix="give `base`"
            )
        name = self.base_source or _SOURCE_OF_TASK.get(config.get("task_type") or "")
        if name is None:
            name = next((name for name, cls in BY_NAME.items() if cls.recognises(path)), None)
        if name is None:
            raise ConfigError(
                "cannot tell what kind of model the adapter's base is",
                adapter=self.directory,
                base=path,
                fix=f"give `base_source`, one of {', '.join(BY_NAME)}",
            )
        return BY_NAME[name](path=path, revision=self.base_revision)

    @cached_property
    def opened(self) -> tuple[LoraCheckpoint, Architecture]:
        """The adapted weights, and their architecture."""
        adapter = read_adapter(self.directory)
        source = self.base_model
        inner, architecture = align(open_checkpoint(source.directory), source.described, partial=True)
        adapted = LoraCheckpoint(inner, adapter, _conv1d(architecture), frozenset(architecture.state))
        self._check_complete(adapted, inner, architecture)
        return adapted, architecture

    def open(self) -> LoraCheckpoint:
        return self.opened[0]

    def skeleton(self) -> nn.Module:
        return self.opened[1].skeleton()

    def vocabulary(self) -> TextVocabulary:
        base = self.base_model
        return TextVocabulary(base.directory, self.opened[1], tokenizer_files(base.assets()))

    def resized(self, rows: int) -> nn.Module:
        return replace(self.opened[1], vocab_size=rows).skeleton()

    def commit(self) -> str | None:
        return hub_commit(self.directory)

    def for_artefact(self, directory: Path) -> ModelSource:
        return self.base_model.for_artefact(directory)

    def assets(self) -> Sequence[Path]:
        return self.base_model.assets()

    def _check_complete(
        self, adapted: LoraCheckpoint, inner: AlignedCheckpoint, architecture: Architecture
    ) -> None:
        missing = [name for name in architecture.state if name not in adapted]
        if missing:
            raise IncompatibleModels(
                f"base and adapter together lack tensors of {type(architecture.meta).__name__}",
                adapter=self.directory,
                base=inner.location,
                missing=", ".join(missing[:6]),
                fix="give the right `base_source`; text_encoder opens the trunk alone",
            )


def _conv1d(architecture: Architecture) -> frozenset[str]:
    modules = architecture.meta.named_modules()
    return frozenset(name for name, module in modules if type(module).__name__ == "Conv1D")
