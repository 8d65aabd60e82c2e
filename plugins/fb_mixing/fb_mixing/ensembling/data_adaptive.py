"""A model whose weights are put together anew for each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fb_mixing.ensembling.router import Router


class DataAdaptiveModel(nn.Module):
    r"""A model that adds task vectors to all of its weights, by coefficients of each sample.

    $$\theta^l(x) = \theta_0^l + \sum_{t=1}^{T} r^l_t(\phi(x))\, \tau^l_t$$

    where $\phi(x)$ is what the model with the weights $\theta_0$ gives for x, averaged over its tokens.

    Attributes:
        base: The model with the weights $\theta_0$.
        router: Gives the coefficients, `(n, T)` or `(n, T L)`.
        deltas: $\tau$, one `(T, ...)` a parameter.

    Args:
        base: A model whose forward takes tensors with one row a sample.
        names: Dotted names of the parameters with task vectors.
        models: T.
        router: Its arguments.
        by_tensor: Whether each parameter has coefficients of its own.
    """

    def __init__(
        self,
        base: nn.Module,
        names: Sequence[str],
        *,
        models: int,
        router: Mapping[str, Any],
        by_tensor: bool,
    ) -> None:
        super().__init__()
        dtype = next((each.dtype for each in base.parameters() if each.is_floating_point()), torch.float32)
        self.base = base
        self.config = getattr(base, "config", None)
        self.router = Router(**router, dtype=dtype)
        self.names = tuple(names)
        self.models = models
        self.by_tensor = by_tensor
        zeros = [each.new_zeros(models, *each.shape) for each in map(base.get_parameter, names)]
        self.deltas = nn.ParameterList(nn.Parameter(each, requires_grad=False) for each in zeros)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """What the base gives, with other weights for each sample."""
        with torch.no_grad():
            features = pooled(self.base(*arguments, **named), named.get("attention_mask"))
        coefficients = self.router(features)
        if len(coefficients) == 1:
            return functional_call(self.base, self.weights(coefficients[0]), arguments, named)
        outputs = [
            functional_call(self.base, self.weights(row), *_row(number, arguments, named, len(features)))
            for number, row in enumerate(coefficients)
        ]
        return _together(outputs)

    def weights(self, coefficients: Tensor) -> dict[str, Tensor]:
        """Name of a parameter -> its value for a sample with these coefficients, `(T,)` or `(T L,)`."""
        shares = coefficients.view(self.models, -1).T
        if not self.by_tensor:
            shares = shares.expand(len(self.names), -1)
        return {
            name: self.base.get_parameter(name) + torch.tensordot(share.to(delta.dtype), delta, 1)
            for name, share, delta in zip(self.names, shares, self.deltas)
        }

    def state_dict(
        self, *arguments: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """The base's tensors under their own names, by which a model source knows the architecture."""
        found = {} if destination is None else destination
        for part, module in self.named_children():
            own = prefix if part == "base" else f"{prefix}{part}."
            module.state_dict(destination=found, prefix=own, keep_vars=keep_vars)
        return found

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load what :meth:`state_dict` gives."""
        named = {
            name if name.startswith(("router.", "deltas.")) else f"base.{name}": tensor
            for name, tensor in state_dict.items()
        }
        return super().load_state_dict(named, strict=strict, assign=assign)

    def extra_repr(self) -> str:
        return f"models={self.models}, by_tensor={self.by_tensor}"


def pooled(output: Any, mask: Tensor | None = None) -> Tensor:
    """The first floating tensor `(n, ..., width)` that a model gives, averaged over its tokens: `(n, width)`.

    Tokens that a mask `(n, length)` marks as padding do not count.
    """
    states = next(_tensors(output))
    if mask is not None and states.shape[:-1] == mask.shape:
        weights = mask.to(states.dtype).unsqueeze(-1)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
    return states.flatten(1, -2).mean(1) if states.ndim > 2 else states


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, (Mapping, tuple, list)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def _row(
    number: int, arguments: tuple[Any, ...], named: Mapping[str, Any], count: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    def one(value: Any) -> Any:
        rows = isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
        return value[number : number + 1] if rows else value

    return tuple(map(one, arguments)), {name: one(value) for name, value in named.items()}


def _together(outputs: Sequence[Any]) -> Any:
    """Outputs of single samples as one of all; what holds no tensors, such as caches, is left out."""
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs)) if first.ndim else torch.stack(list(outputs)).mean()
    if isinstance(first, Mapping):
        items = {key: _together([output[key] for output in outputs]) for key in first}
        return type(first)(**items) if type(first) is not dict else items
    if isinstance(first, (tuple, list)):
        parts = [_together(list(each)) for each in zip(*outputs)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return None
