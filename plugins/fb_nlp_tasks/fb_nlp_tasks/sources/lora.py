"""LoRA adapters, exactly: `W + s B A`, one tensor at a time, never A and B apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fb_nlp_tasks.sources.adapter import Adapter
from fb_nlp_tasks.sources.recent import RecentTensors
from fusionbench_core import Checkpoint, IncompatibleModels, TensorInfo


class LoraCheckpoint(Checkpoint):
    """The base's tensors with an adapter's change added, computed when asked for.

    Adapted tensors are fp32 (fp64 over an fp64 base), also where the base is half precision: rounding
    `W + s B A` to the base's type would lose a good part of a small change.

    Args:
        base: The base model under its module's names.
        adapter: The adapter.
        modules: Names of Conv1D modules, whose weights are `(in, out)`.
        known: All names of the architecture; trained-whole tensors outside it are left out.

    Raises:
        IncompatibleModels: if an adapted tensor is not in the base, is tied, or has another shape.
    """

    def __init__(
        self, base: Checkpoint, adapter: Adapter, modules: frozenset[str], known: frozenset[str]
    ) -> None:
        self._base = base
        self._adapter = adapter
        self._transposed = modules
        self.location = str(adapter.directory)
        self._factors: dict[str, str] = {}
        self._biases: dict[str, str] = {}
        self._whole: dict[str, str] = {}
        for module in adapter.factors:
            name = self._find(f"{module}.weight", known)
            self._factors[name] = module
            if adapter.factors[module].bias:
                self._biases[f"{name.removesuffix('weight')}bias"] = module
        for said, name in adapter.whole.items():
            found = self._find(said, known, optional=True)
            if found is not None:
                self._whole[found] = name
        self._aliases = self._check_ties()
        self._check_shapes()
        self._keys = (*base.keys(), *(name for name in self._whole if name not in base))
        self._recent = RecentTensors(self._compute)

    def keys(self) -> tuple[str, ...]:
        return self._keys

    def info(self, key: str) -> TensorInfo:
        if key in self._whole and key not in self._factors:
            found = self._adapter.weights.info(self._whole[key])
        else:
            found = self._base.info(key)
        key = self._aliases.get(key, key)
        return TensorInfo(found.shape, _wide(found.dtype) if self._is_adapted(key) else found.dtype)

    def tensor(self, key: str) -> Tensor:
        key = self._aliases.get(key, key)
        return self._recent[key] if self._is_adapted(key) else self._base.tensor(key)

    def chunk(self, key: str, start: int, stop: int) -> Tensor:
        key = self._aliases.get(key, key)
        if self._is_adapted(key):
            return self._recent[key].reshape(-1)[start:stop]
        return self._base.chunk(key, start, stop)

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._aliases

    def identity(self) -> str:
        settings = sorted((name, self._adapter.scaling(module)) for name, module in self._factors.items())
        return f"{self._base.identity()}:{self._adapter.weights.identity()}:{settings}"

    def _is_adapted(self, key: str) -> bool:
        return key in self._factors or key in self._biases or key in self._whole

    def _compute(self, key: str) -> Tensor:
        read = self._adapter.weights.tensor
        source = read(self._whole[key]) if key in self._whole else self._base.tensor(key)
        result = source.to(_wide(source.dtype))
        if key in self._factors:
            module = self._factors[key]
            result = result + self._delta(module, result)
        if key in self._biases:
            module = self._biases[key]
            bias = self._adapter.factors[module].bias or ""
            result = result + read(bias).to(result.dtype) * self._adapter.scaling(module)
        return result

    def _delta(self, module: str, like: Tensor) -> Tensor:
        """`s B A` in the layout of the weight: `(out, in)`, or `(in, out)` for embeddings and Conv1D."""
        factors = self._adapter.factors[module]
        b, a = (self._adapter.weights.tensor(name).to(like.dtype) for name in (factors.b, factors.a))
        product = b @ a
        if factors.embedding or self._is_transposed(module, tuple(like.shape)):
            product = product.T
        return product * self._adapter.scaling(module)

    def _is_transposed(self, module: str, shape: tuple[int, ...]) -> bool:
        factors = self._adapter.factors[module]
        out_in = (
            self._adapter.weights.info(factors.b).shape[0],
            self._adapter.weights.info(factors.a).shape[1],
        )
        if out_in[0] != out_in[1]:
            return shape != out_in
        name = next(name for name, owner in self._factors.items() if owner == module)
        return (
            bool(self._adapter.config.get("fan_in_fan_out"))
            or name.removesuffix(".weight") in self._transposed
        )

    def _find(self, said: str, known: frozenset[str], optional: bool = False) -> Any:
        """The architecture's name for a tensor that the adapter, trained on another head, names `said`."""
        if said in known:
            return said
        _, _, shorter = said.partition(".")
        if shorter in known:
            return shorter
        longer = [name for name in known if name.partition(".")[2] == said]
        if len(longer) == 1:
            return longer[0]
        if optional:
            return None
        raise IncompatibleModels(
            f"the adapter changes {said}, which its base does not have",
            adapter=self.location,
            base=self._base.location,
            fix="give the base that the adapter was trained on (`base`), and its kind (`base_source`)",
        )

    def _check_ties(self) -> dict[str, str]:
        """The base's ties, without those that the adapter replaces on both sides alike."""
        for alias, kept in self._base.aliases.items():
            touched = [name for name in (alias, kept) if self._is_adapted(name)]
            if not touched:
                continue
            replaced = [self._whole.get(name) for name in (alias, kept)]
            read = self._adapter.weights.tensor
            if None not in replaced and not any(name in self._factors for name in (alias, kept)):
                one, other = (read(str(name)) for name in replaced)
                if one.shape == other.shape and torch.equal(one, other):
                    continue
            raise IncompatibleModels(
                f"the adapter changes {touched[0]}, which shares its weights with another layer",
                adapter=self.location,
                why=f"{alias} is tied to {kept}; adapted, they differ, and a tied model cannot hold both",
                fix="untie the base first: set tie_word_embeddings to false in its config and save both",
            )
        return dict(self._base.aliases)

    def _check_shapes(self) -> None:
        for name, module in self._factors.items():
            factors = self._adapter.factors[module]
            rank, inner = self._adapter.weights.info(factors.a).shape
            shape = tuple(self.info(name).shape)
            out_in = (self._adapter.weights.info(factors.b).shape[0], inner)
            if shape not in (out_in, out_in[::-1]):
                raise IncompatibleModels(
                    f"the adapter's change of {name} has another shape than the base",
                    adapter=self.location,
                    base=self._base.location,
                    why=f"{list(out_in)} of rank {rank}, the base has {list(shape)}",
                    fix="give the base that the adapter was trained on",
                )


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
