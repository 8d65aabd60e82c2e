"""Text models of transformers: one implementation, four auto classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from fb_nlp_tasks import plugin
from fb_nlp_tasks.sources import examples
from fb_nlp_tasks.sources.aligned import AlignedCheckpoint, align
from fb_nlp_tasks.sources.architecture import Architecture, read_config
from fb_nlp_tasks.sources.hub import locate
from fb_nlp_tasks.sources.remembered import align_remembered
from fb_nlp_tasks.sources.vocabulary import TextVocabulary
from fusionbench_core import FusionError, ModelSource, hub_commit, implements, open_checkpoint, resolve_path

TOKENIZER = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files that make up a tokenizer, or name ids of tokens."""

ASSETS = ("config.json", *TOKENIZER)
"""What `from_pretrained` of model and tokenizer may read besides the weights."""

NOTICES = ("NOTICE*", "LICENSE*", "LICENCE*")
"""What a licence may ask a derived model to carry along."""

RECORDS = {record.name: record for record in plugin.SOURCES}


class TransformersTextSource(ModelSource):
    """A text model in transformers' format: a directory with config.json and weights, or a hub id.

    Names are those of the live module. Tensors of other heads in the same file are left out; prefixes
    are added or stripped; tied weights appear as aliases.
    """

    auto: ClassVar[str]
    """Name of transformers' auto class."""
    architectures: ClassVar[tuple[str, ...]]
    """Endings of the class names, in a config's `architectures`, that this source is made for."""
    others: ClassVar[tuple[str, ...]] = ()
    """Longer endings that another source is made for."""

    revision: str | None = Field(default=None, description="branch, tag or commit of a hub id")
    trust_remote_code: bool = Field(
        default=False, description="run the Python files beside the weights; only for models you have read"
    )

    @classmethod
    def example(cls, directory: Path) -> Mapping[str, str]:
        examples.write_model(cls.auto, directory)
        return {"path": str(directory)}

    @classmethod
    def example_state(cls, directory: Path) -> Mapping[str, Tensor]:
        return examples.loaded(cls.auto, directory)

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether `path` is a local directory whose config.json names such an architecture."""
        try:
            directory = resolve_path(path)
            config = read_config(directory) if directory is not None else {}
        except FusionError:
            return False
        if "vocab_size" not in config or {"vision_config", "image_size", "num_mel_bins"} & config.keys():
            return False
        name = str((config.get("architectures") or [""])[0])
        return name.endswith(cls.architectures) and not name.endswith(cls.others)

    @property
    def directory(self) -> Path:
        """Where the files are; downloads a hub id on first use."""
        return self.described.directory

    @cached_property
    def described(self) -> Architecture:
        """The architecture that config.json describes."""
        directory = locate(self.path, self.revision, code=self.trust_remote_code)
        return Architecture(directory, self.auto, self.trust_remote_code)

    @cached_property
    def aligned(self) -> tuple[AlignedCheckpoint, Architecture]:
        """The weights, and the architecture fitted to them; see `align`."""
        return align_remembered(open_checkpoint(self.directory), self.described)

    def open(self) -> AlignedCheckpoint:
        return self.aligned[0]

    def skeleton(self) -> nn.Module:
        # The file may be an artefact whose architecture a builder changes: it tells what it holds.
        return align(open_checkpoint(self.directory), self.described, partial=True)[1].skeleton()

    def vocabulary(self) -> TextVocabulary:
        return TextVocabulary(self.directory, self.aligned[1], tokenizer_files(self.assets()))

    def resized(self, rows: int) -> nn.Module:
        return replace(self.aligned[1], vocab_size=rows).skeleton()

    def commit(self) -> str | None:
        return hub_commit(self.directory)

    def assets(self) -> Sequence[Path]:
        named = [self.directory / name for name in ASSETS]
        patterns = (*NOTICES, *(("*.py",) if self.trust_remote_code else ()))
        found = [file for pattern in patterns for file in sorted(self.directory.glob(pattern))]
        return tuple(file for file in (*named, *found) if file.is_file())


@implements(RECORDS["text_encoder"])
class TextEncoder(TransformersTextSource):
    """A text model without a head: the trunk that text tasks attach their own heads to."""

    auto = "AutoModel"
    architectures = ("Model", "ForMaskedLM", "ForPreTraining")
    others = ("LMHeadModel",)


@implements(RECORDS["causal_lm"])
class CausalLM(TransformersTextSource):
    """A causal language model with its language-modelling head, tied to the embedding or not."""

    auto = "AutoModelForCausalLM"
    architectures = ("ForCausalLM", "LMHeadModel")


@implements(RECORDS["seq2seq_lm"])
class Seq2SeqLM(TransformersTextSource):
    """An encoder-decoder language model."""

    auto = "AutoModelForSeq2SeqLM"
    architectures = ("ForConditionalGeneration",)


@implements(RECORDS["text_classifier"])
class TextClassifier(TransformersTextSource):
    """A sequence classifier with its head; `num_labels: 1` makes it a reward model.

    To merge experts whose heads differ, open their trunks with `text_encoder` instead, and give each
    head to its task.
    """

    auto = "AutoModelForSequenceClassification"
    architectures = ("ForSequenceClassification",)


def tokenizer_files(assets: Sequence[Path]) -> list[Path]:
    """Those of a model's assets that make up its tokenizer, or name ids of tokens."""
    return [asset for asset in assets if asset.name in TOKENIZER]


BY_NAME: dict[str, type[TransformersTextSource]] = {
    cls.record.name: cls for cls in (TextEncoder, CausalLM, Seq2SeqLM, TextClassifier)
}
"""Source name -> class."""
