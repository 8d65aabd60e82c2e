"""The contract of model sources: open a reference lazily, build a live module when asked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fusionbench_core.checkpoints import Checkpoint
from fusionbench_core.errors import IncompatibleModels, MissingCapability
from fusionbench_core.pools.vocabulary import Vocabulary
from fusionbench_core.records import SourceRecord


class ModelSource(BaseModel):
    """One reference to a model, and how to read it. A source is its validated parameters.

    A pool names a source once for all its models, or one by one: `{source: nlp_tasks/peft, path: …}`.
    Names in `open()` and in `skeleton().state_dict()` must be the same, buffers included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    record: ClassVar[SourceRecord]

    path: str = Field(description="local directory or file, a hub id, or pkg://PACKAGE/PATH inside a plugin")

    @classmethod
    def example(cls, directory: Path) -> Mapping[str, Any] | None:
        """Parameters of a small model for the conformance kit, written to the empty `directory`.

        It must be the same model whenever it is called, made without a network. None: there is none.
        """
        return None

    @classmethod
    def example_state(cls, directory: Path) -> Mapping[str, Tensor] | None:
        """The tensors of the example in `directory`, read whole by the format's own library.

        The conformance kit compares what `open()` gives with them. None: there is no such library.
        """
        return None

    @classmethod
    def recognises(cls, path: str) -> bool:
        """Whether this source can open `path`, judged from names; for pools that name none."""
        return False

    @abstractmethod
    def open(self) -> Checkpoint:
        """A lazy view of the weights; reads headers only.

        Raises:
            InputError: if the reference is missing, offline, corrupt or not trusted.
        """

    @abstractmethod
    def skeleton(self) -> nn.Module:
        """A module of this architecture with arbitrary weights, in fp32, in eval mode."""

    def commit(self) -> str | None:
        """The commit that a hub id stands for, also where the reference names a branch or nothing.

        It stands in reports and artefacts. None for local files: their content hash says what they are.
        """
        return None

    def assets(self) -> Sequence[Path]:
        """Files that an artefact must carry along: config, tokenizer, processor."""
        return ()

    def changed_assets(self) -> Mapping[str, str]:
        """File name -> text that an artefact carries in place of the asset of that name."""
        return {}

    def vocabulary(self) -> Vocabulary | None:
        """The model's tokens, for pools whose models have different ones. None: it has no tokens.

        Raises:
            InputError: if the tokenizer's files are missing or cannot be read.
        """
        return None

    def resized(self, rows: int) -> nn.Module:
        """Like `skeleton`, with `rows` rows in the tensors of the vocabulary."""
        raise MissingCapability(
            f"source {self.record.full_name} cannot change the size of a vocabulary", model=self.path
        )

    def for_artefact(self, directory: Path) -> ModelSource:
        """The source that reads an artefact of this architecture, written to `directory`."""
        # Not model_copy: that carries along what a cached property of this source has opened.
        parameters = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate({**parameters, "path": str(directory)})

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        """A live module with the weights of `checkpoint`, in fp32, in eval mode, without gradients.

        Raises:
            IncompatibleModels: if names or shapes do not fit the architecture.
        """
        module = self.skeleton()
        load_into(module, checkpoint)
        return module.eval().requires_grad_(False)


def load_into(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Copy every tensor of `checkpoint` into `module`; dtypes are the module's.

    Raises:
        IncompatibleModels: naming every missing, unexpected and ill-shaped tensor.
    """
    state = module.state_dict()
    aliases = {
        name for name, tensor in state.items() if name not in checkpoint and _is_tied(state, name, tensor)
    }
    problems = [f"{name} is missing" for name in state if name not in checkpoint and name not in aliases]
    problems += [f"{name} is not in the architecture" for name in checkpoint if name not in state]
    problems += [
        f"{name} is {list(checkpoint.info(name).shape)}, the architecture has {list(state[name].shape)}"
        for name in checkpoint
        if name in state and checkpoint.info(name).shape != tuple(state[name].shape)
    ]
    if problems:
        raise IncompatibleModels(
            f"the weights do not fit {type(module).__name__}",
            model=checkpoint.location,
            why="\n".join([*problems[:8], *(["…"] if len(problems) > 8 else [])]),
            fix="check that weights and config.json belong together",
        )
    for name in checkpoint:
        state[name].copy_(checkpoint.tensor(name))


def _is_tied(state: dict, name: str, tensor) -> bool:
    return any(other is not tensor and other.data_ptr() == tensor.data_ptr() for other in state.values())
