"""A pool of models: named references, the base, and which of their tensors are merged."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import nn

from fusionbench_core.checkpoints import Checkpoint, StateDictCheckpoint
from fusionbench_core.checkpoints.finite import FiniteCheckpoint
from fusionbench_core.errors import MissingCapability
from fusionbench_core.pools.aligned import AlignedSource, VocabularyAlignment
from fusionbench_core.pools.scope import matches, scope_of
from fusionbench_core.pools.source import ModelSource


class PooledModel:
    """One model of a pool: a source, or tensors that are in memory already."""

    def __init__(self, name: str, *, source: ModelSource | None = None, content: Any = None) -> None:
        self.name = name
        self.source = source
        self._content = content

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """A lazy view of the weights."""
        if self.source is not None:
            return self.source.open()
        if isinstance(self._content, Checkpoint):
            return self._content
        if isinstance(self._content, nn.Module):
            return StateDictCheckpoint.of(self._content, self.name)
        return StateDictCheckpoint(self._content, self.name)

    def checked(self, called: str) -> PooledModel:
        """The same model; reading NaN or Inf from its checkpoint raises `NonFiniteInput` about `called`."""
        twin = copy.copy(self)
        twin.checkpoint = FiniteCheckpoint(self.checkpoint, called)
        return twin

    @property
    def live(self) -> nn.Module | None:
        """The user's own module, if the pool was made of modules."""
        return self._content if isinstance(self._content, nn.Module) else None


class ModelPool:
    """An ordered mapping of names to models, and the base they were fine-tuned from.

    Args:
        models: Name -> model, in config order.
        base: The pre-trained model, if there is one.
        scope: Which tensors are merged: shell patterns to `include` and to `exclude`; all if left out.
        heads: Shell patterns of task-specific tensors: never merged, need not agree, kept from the
            base if it has them.
        data: Model name -> name of the task it was fine-tuned on, where that is not its own name.
        layer_names: How the layers' tensors are called, e.g. `decoder.stages.{layer}.`; None: as usual.
        chat_template: A Jinja template for the artefact, or `auto`; None keeps the reference model's.
        baselines: Name -> model of the same kind to compare results with; never fused.
    """

    def __init__(
        self,
        models: Mapping[str, PooledModel],
        base: PooledModel | None = None,
        *,
        scope: Mapping[str, Sequence[str]] | None = None,
        heads: tuple[str, ...] = (),
        data: Mapping[str, str] | None = None,
        layer_names: str | None = None,
        chat_template: str | None = None,
        baselines: Mapping[str, PooledModel] | None = None,
    ) -> None:
        self.models = dict(models)
        self.base = base
        self.scope = scope_of(scope)
        self.heads = heads
        self.layer_names = layer_names
        self.chat_template = chat_template
        self.baselines = dict(baselines or {})
        self._data = dict(data or {})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models, the base not among them."""
        return tuple(self.models)

    @property
    def alignment(self) -> VocabularyAlignment | None:
        """How the models came to one vocabulary, if they had different ones."""
        source = self.reference_model.source
        return source.alignment if isinstance(source, AlignedSource) else None

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[str]:
        return iter(self.models)

    def __getitem__(self, name: str) -> PooledModel:
        return self.models[name]

    def checked(self) -> ModelPool:
        """The same pool; reading a tensor that holds NaN or Inf raises `NonFiniteInput`."""
        models = {name: model.checked(name) for name, model in self.models.items()}
        base = self.base.checked("the base") if self.base else None
        checked = copy.copy(self)
        checked.models, checked.base = models, base
        return checked

    @property
    def reference_model(self) -> PooledModel:
        """The model whose architecture the result has: the base, else the first model."""
        return self.base or next(iter(self.models.values()))

    def checkpoint(self, name: str | None = None) -> Checkpoint:
        """A lazy view of model `name`, which may be a baseline; of the base for None.

        Raises:
            MissingCapability: if the base is asked for and the pool has none.
        """
        return self._model(name).checkpoint

    def live_bytes(self, name: str | None = None) -> int:
        """Bytes of a live module of model `name`, from headers; of the base for None. It is fp32 at least."""
        checkpoint = self.checkpoint(name)
        infos = (checkpoint.info(key) for key in checkpoint if key not in checkpoint.aliases)
        return sum(max(info.nbytes, 4 * info.numel if info.is_floating else 0) for info in infos)

    def module(self, name: str | None = None) -> nn.Module:
        """A fresh live module of model `name`, in eval mode, without gradients; of the base for None."""
        return self.build(self.checkpoint(name), like=name)

    def build(self, checkpoint: Checkpoint, like: str | None = None) -> nn.Module:
        """A fresh live module of the pool's architecture with the weights of `checkpoint`.

        Raises:
            MissingCapability: if the pool holds bare state dicts, which have no architecture.
        """
        model = self._model(like) if like or self.base else self.reference_model
        if model.source is not None:
            return model.source.build(checkpoint)
        if model.live is not None:
            return _copy_with(model.live, checkpoint)
        raise MissingCapability(
            "this needs live modules, and the pool holds bare state dicts",
            fix="give modules or paths instead of state dicts",
            model=model.name,
        )

    def merges(self, tensor: str) -> bool:
        """Whether a tensor of that name is merged: it is in scope and belongs to no head."""
        return tensor in self.scope and not matches(tensor, self.heads)

    def task_of(self, name: str) -> str:
        """Name of the task that model `name` was fine-tuned on."""
        return self._data.get(name, name)

    def _model(self, name: str | None) -> PooledModel:
        if name is not None:
            return self.baselines[name] if name in self.baselines else self.models[name]
        if self.base is None:
            raise MissingCapability("the pool has no base model", fix="add `modelpool.base`")
        return self.base


def _copy_with(module: nn.Module, checkpoint: Checkpoint) -> nn.Module:
    from fusionbench_core.pools.source import load_into

    twin = copy.deepcopy(module).requires_grad_(False)
    load_into(twin, checkpoint)
    return twin.eval()
