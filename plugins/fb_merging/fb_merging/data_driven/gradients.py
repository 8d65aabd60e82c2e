"""Gradients of the log-likelihood of single samples, for statistics that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fusionbench_core import Batch, TaskError, frozen

Estimate = Annotated[
    Literal["exact", "sampled", "empirical"],
    Field(
        description="labels of the log-likelihood: all, weighted by the model's probabilities; one a sample, "
        "drawn from them; or the true ones (needs labelled data)"
    ),
]


def mean_over_samples(
    model: nn.Module,
    batches: Iterable[Batch],
    estimate: Estimate,
    split: str,
    accumulate: Callable[[Tensor, Tensor, float], object],
) -> dict[str, Tensor]:
    """Mean over samples of a function of the gradient of each; see :func:`sample_gradients`.

    Args:
        model: With a submodule `trunk`.
        batches: Inputs, with labels for the empirical estimate.
        estimate: Which labels.
        split: Where the batches come from, for messages.
        accumulate: Called with a sum, a gradient and its weight: adds the weight times a function of the
            gradient to the sum, in place.

    Returns:
        Name of a parameter in the trunk's state dict, of tied ones all names -> the mean, of its shape.

    Raises:
        TaskError: if there are no samples, or no classes.
    """
    sums: dict[str, Tensor] = {}
    count = 0
    for labels in sample_gradients(model, batches, estimate, split):
        count += 1
        for weight, gradient in labels:
            while gradient:  # Nothing is left of it when the next one is computed.
                name, grad = gradient.popitem()
                if name not in sums:
                    sums[name] = torch.zeros_like(grad)
                accumulate(sums[name], grad, weight)
                del grad
    names = stored_parameters(model.get_submodule("trunk"))
    return {alias: sums[name] / count for name, aliases in names.items() if name in sums for alias in aliases}


def stored_parameters(trunk: nn.Module) -> dict[str, list[str]]:
    """Name of each floating-point parameter -> the names in the state dict that share it, its own first."""
    names: dict[int, list[str]] = {}
    for name, parameter in trunk.named_parameters(remove_duplicate=False):
        if parameter.is_floating_point():
            names.setdefault(id(parameter), []).append(name)
    return {each[0]: each for each in names.values()}


def sample_gradients(
    model: nn.Module, batches: Iterable[Batch], estimate: Estimate, split: str
) -> Iterator[Iterator[tuple[float, dict[str, Tensor]]]]:
    r"""For each sample: $\nabla \log p(y \mid x)$ for one or several labels y, each with its weight.

    They are computed one after the other: a large model's gradients are held once, not once a label. Weights
    of a sample add up to 1. Gradients are with respect to the trunk's floating-point parameters,
    under their own names, in fp32 at least; parameters that a sample does not reach are left out.

    Raises:
        TaskError: if there are no samples, or no classes.
    """
    trunk = model.get_submodule("trunk")
    parameters = {name: trunk.get_parameter(name) for name in stored_parameters(trunk)}
    device = next(model.parameters()).device
    seen = 0
    with frozen([model]):
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for batch in batches:
            batch = batch.to(device)
            for row in range(len(batch)):
                yield _of_sample(model, parameters, batch, row, estimate)
            seen += len(batch)
    require_samples(seen, split)


def require_samples(seen: int, split: str) -> None:
    """Check that there were samples.

    Raises:
        TaskError: if not.
    """
    if not seen:
        raise TaskError(
            "there are no samples to take gradients on",
            fix=f"check that the task has data in split {split!r}",
        )


def log_probabilities(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Of each class, for each sample: `(n, classes)`, in fp32.

    Raises:
        TaskError: if the model predicts something else than one class a sample.
    """
    logits = model(**inputs)
    if logits.ndim != 2:
        raise TaskError(
            "statistics of gradients are those of one label a sample, and the task has other predictions",
            why=f"its logits have the shape {list(logits.shape)}, and not (samples, classes)",
            fix="give the models tasks of classification, or use a method that takes no gradients: regmean",
        )
    return logits.float().log_softmax(-1)


def drawn_label(probabilities: Tensor, index: int) -> int:
    """A label drawn from `(classes,)` probabilities; the same for a sample in whatever batch it comes."""
    uniform = torch.rand((), generator=torch.Generator().manual_seed(index), dtype=torch.float64)
    steps = probabilities.double().cpu().cumsum(0)
    return min(int(torch.searchsorted(steps, uniform * steps[-1], right=True)), len(steps) - 1)


def _of_sample(
    model: nn.Module, parameters: Mapping[str, Tensor], batch: Batch, row: int, estimate: str
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    with torch.enable_grad():
        inputs = {name: tensor[row : row + 1] for name, tensor in batch.inputs.items()}
        log_p = log_probabilities(model, inputs)[0]
    probabilities = log_p.detach().exp()
    if estimate == "empirical":
        assert batch.labels is not None
        labels = [(1.0, int(batch.labels[row]))]
    elif estimate == "sampled":
        labels = [(1.0, drawn_label(probabilities, int(batch.indices[row])))]
    else:
        labels = [(p, label) for label, p in enumerate(probabilities.tolist()) if p > 0]
    last = len(labels) - 1
    for position, (weight, label) in enumerate(labels):
        with torch.enable_grad():
            chosen = log_p[label]
        yield weight, _gradient(chosen, parameters, keep=position < last)


def _gradient(value: Tensor, parameters: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    grads = torch.autograd.grad(value, list(parameters.values()), retain_graph=keep, allow_unused=True)
    return {
        name: grad.to(torch.promote_types(grad.dtype, torch.float32))
        for name, grad in zip(parameters, grads)
        if grad is not None
    }
