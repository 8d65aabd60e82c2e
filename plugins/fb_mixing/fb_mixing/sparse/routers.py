"""First weights of routers: random, or the directions in which the experts' texts lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fusionbench_core import FusionJob, MissingCapability, ModelPool


def random_rows(
    job: FusionJob, widths: Mapping[str, int], experts: Sequence[str], std: float
) -> dict[str, Tensor]:
    """Name of a module -> `(experts, in)`, normal numbers keyed by seed, module and expert."""

    def row(name: str, expert: str, width: int) -> Tensor:
        generator = job.generator("router", name, expert)
        return std * torch.randn(width, generator=generator, dtype=torch.float32)

    return {
        name: torch.stack([row(name, expert, width) for expert in experts]) for name, width in widths.items()
    }


def unit(direction: Tensor) -> Tensor:
    """A vector of length 1 in that direction; zeros stay zeros."""
    return direction / torch.linalg.vector_norm(direction).clamp_min(1e-8)


class Inputs:
    """Sums of the tokens that modules see, gathered while a model runs.

    Args:
        model: The model.
        names: Dotted names of the modules.
        last: Look at the last token of each sample only.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], *, last: bool) -> None:
        self._last = last
        self._model = model
        self._names = names
        self._sums: dict[str, Any] = dict.fromkeys(names, 0)
        self._counts: dict[str, float] = dict.fromkeys(names, 0)
        self.mask: Tensor | None = None
        """`(n, length)`, non-zero for the tokens that count; None for all."""

    def means(self) -> dict[str, Tensor]:
        """Name -> mean token, `(in,)`."""
        return {name: self._sums[name] / max(self._counts[name], 1) for name in self._names}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Gather while this is open."""
        with ExitStack() as stack:
            for name in self._names:
                hook = self._model.get_submodule(name).register_forward_pre_hook(self._hear(name))
                stack.callback(hook.remove)
            yield

    def _hear(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hear(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            tokens = arguments[0].detach().float()
            if self._last:
                tokens = tokens[..., -1, :]
            weights = tokens.new_ones(tokens.shape[:-1])
            if self.mask is not None and self.mask.shape == weights.shape:
                weights = self.mask.to(weights)
            self._sums[name] = self._sums[name] + (weights.unsqueeze(-1) * tokens).flatten(0, -2).sum(0)
            self._counts[name] += float(weights.sum())

        return hear


@torch.no_grad()
def hidden_of_prompts(
    model: nn.Module,
    tokenize: Callable[[str], Mapping[str, Tensor]],
    names: Sequence[str],
    prompts: Sequence[str],
    *,
    last: bool,
) -> dict[str, Tensor]:
    """Name -> mean over prompts of the last, or the mean, token that the module sees, `(in,)`."""
    total: dict[str, Any] = dict.fromkeys(names, 0)
    for prompt in prompts:
        inputs = Inputs(model, names, last=last)
        with inputs.listening():
            model(**tokenize(prompt))
        for name, mean in inputs.means().items():
            total[name] = total[name] + mean / len(prompts)
    return total


@torch.no_grad()
def hidden_of_task(
    job: FusionJob, model: nn.Module, names: Sequence[str], task: str, samples: int
) -> dict[str, Tensor]:
    """Name -> mean token that the module sees on a task's unlabelled data, `(in,)`."""
    adaptation = job.tasks[task]
    attached = adaptation.attach(model)
    inputs = Inputs(model, names, last=False)
    with inputs.listening():
        for batch in adaptation.batches("validation", limit=samples):
            inputs.mask = batch.inputs.get("attention_mask")
            attached(**batch.inputs)
    return inputs.means()


def tokenizer_of(pool: ModelPool) -> Callable[[str], dict[str, Tensor]]:
    """What makes a model's inputs of a text, with the tokenizer beside the base.

    Raises:
        MissingCapability: if there is none.
    """
    source = pool.reference_model.source
    files = [each for each in (source.assets() if source else ()) if each.name.startswith("token")]
    if not files:
        raise MissingCapability(
            "prompts need a tokenizer, and there is none beside the base",
            model=source.path if source else "in memory",
            fix="give models as directories with a tokenizer, or gather hidden states on the task pool: "
            "router_init=hidden_avg without prompts",
        )
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(files[0].parent, local_files_only=True)
    return lambda text: {
        key: torch.tensor([value])
        for key, value in tokenizer(text).items()
        if key in ("input_ids", "attention_mask")
    }
