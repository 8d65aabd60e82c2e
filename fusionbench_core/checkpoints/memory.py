"""A state dict or a live module, seen as a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fusionbench_core.checkpoints.checkpoint import Checkpoint, TensorInfo
from fusionbench_core.errors import ConfigError


class StateDictCheckpoint(Checkpoint):
    """Tensors that are in memory already; never copied, never written to.

    Args:
        state: Name -> tensor. Names that share one storage, shape and stride are tied.
        location: What to call it in messages.

    Raises:
        ConfigError: if a value is not a tensor.
    """

    def __init__(self, state: Mapping[str, Tensor], location: str = "memory") -> None:
        for key, value in state.items():
            if not isinstance(value, Tensor):
                raise ConfigError(
                    f"entry {key!r} of a state dict is a {type(value).__name__}, not a tensor",
                    fix="pass a flat mapping of names to tensors, e.g. `module.state_dict()`",
                    model=location,
                )
        self._state = {key: value.detach() for key, value in state.items()}
        self._keys = tuple(self._state)
        self._aliases = _shared(self._state)
        self.location = location

    @classmethod
    def of(cls, module: nn.Module, location: str = "memory") -> StateDictCheckpoint:
        """The state dict of a module (persistent buffers included)."""
        return cls(module.state_dict(), location)

    def keys(self) -> tuple[str, ...]:
        return self._keys

    def info(self, key: str) -> TensorInfo:
        tensor = self._state[key]
        return TensorInfo(tuple(tensor.shape), tensor.dtype)

    def tensor(self, key: str) -> Tensor:
        return self._state[key].cpu()

    @property
    def aliases(self) -> Mapping[str, str]:
        return self._aliases


def _shared(state: Mapping[str, Tensor]) -> dict[str, str]:
    first: dict[tuple, str] = {}
    aliases = {}
    for key, tensor in state.items():
        if tensor.numel() == 0 or tensor.device.type == "meta":
            continue
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if place in first:
            aliases[key] = first[place]
        else:
            first[place] = key
    return aliases
