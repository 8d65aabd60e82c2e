"""Small models made from seeds, with everything in them that trips fusion methods up.

No download, no file: every case is some kilobytes and made in a millisecond.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionbench_core.records import TaskRecord, implements
from fusionbench_core.tasks import Batch, ClassificationTask, TaskCard

NAMES = ("alpha", "beta", "gamma", "delta", "epsilon")
"""Names of the models of a case, in config order; not the alphabetical one."""

WIDTH, CLASSES, VOCABULARY, LENGTH, EXPERTS = 8, 3, 11, 5, 5


@dataclass(frozen=True)
class Case:
    """A base and models fine-tuned from it.

    Attributes:
        name: Name of the architecture.
        base: The pre-trained module.
        models: Name -> module of the same architecture.
        tasks: Task name -> task that a model of this architecture can be measured on.
    """

    name: str
    base: nn.Module
    models: Mapping[str, nn.Module]
    tasks: Mapping[str, ClassificationTask] = field(default_factory=dict)

    def states(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
        """The models and the base as state dicts; the tensors are copies, tied where they were."""
        return {name: state_of(model) for name, model in self.models.items()}, state_of(self.base)

    def changed(self, change: Callable[[str | None, str, Tensor], Tensor]) -> Case:
        """A copy with other values: `change(model, name, tensor)`, the model None for the base.

        Names that are tied are given one after the other; the last one counts.
        """
        base = _changed(self.base, partial(change, None))
        models = {name: _changed(model, partial(change, name)) for name, model in self.models.items()}
        return Case(self.name, base, models, self.tasks)

    def floats_changed(self, change: Callable[[str | None, str, Tensor], Tensor]) -> Case:
        """Like :meth:`changed`, floating tensors only."""
        return self.changed(lambda *at: change(*at) if at[2].is_floating_point() else at[2])


class Mlp(nn.Module):
    """Two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, WIDTH)` in and out."""
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.norm(x)


class ConvBn(nn.Module):
    """A convolution with batch normalisation: float and integer buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.bn = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, WIDTH)` in and out, through a picture of one row."""
        return F.relu(self.bn(self.conv(x[:, None, None, :]))).mean(dim=(2, 3))


class PlainLm(nn.Module):
    """A language model in small: tied embeddings, position ids, a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embed.weight
        self.block = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("positions", torch.arange(LENGTH))
        self.register_buffer("mask", torch.tensor([True] * (LENGTH - 1) + [False]))

    def forward(self, tokens: Tensor) -> Tensor:
        """`(n, LENGTH)` token ids in, logits `(n, VOCABULARY)` out."""
        mask: Tensor = self.get_buffer("mask")
        hidden = (self.embed(tokens) * mask[None, :, None]).mean(1)
        return self.head(F.relu(self.block(hidden)))


class TiedLm(PlainLm):
    """The same with tensors of awkward shapes: a scalar, one of a single entry, an empty one."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.one = nn.Parameter(torch.zeros(1))
        self.prompt = nn.Parameter(torch.zeros(0, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """`(n, LENGTH)` token ids in, logits `(n, VOCABULARY)` out."""
        return super().forward(tokens) * self.scale + self.one


class VitTiny(nn.Module):
    """Transformer blocks with the names of a vision transformer in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(_Block() for _ in range(3))})
        self.post_layernorm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """`(n, WIDTH)` in and out."""
        x = x + self.embeddings.class_embedding
        for layer in self.encoder["layers"].children():
            x = layer(x)
        return self.post_layernorm(x)


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(WIDTH))
        self.register_buffer("position_ids", torch.arange(2)[None])


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm(x))


class Mixtures(Mlp):
    """The same with sparse mixtures of experts, laid out as transformers lays out Mixtral's."""

    def __init__(self) -> None:
        super().__init__()
        self.mixtures = nn.ModuleList([_Mixture(), _Mixture()])

    def forward(self, x: Tensor) -> Tensor:
        """`(n, WIDTH)` in and out."""
        for layer, mixture in zip(self.layers, self.mixtures):
            x = F.relu(layer(x))
            x = x + mixture(x)
        return self.norm(x)


class _Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = _Gate()
        self.experts = _Experts()

    def forward(self, x: Tensor) -> Tensor:
        _, gates, chosen = self.gate(x)
        return self.experts(x, chosen, gates)


class _Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.top_k = 2
        self.weight = nn.Parameter(torch.zeros(EXPERTS, WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = F.linear(x, self.weight)
        best, chosen = logits.softmax(-1).topk(self.top_k, dim=-1)
        return logits, best / best.sum(-1, keepdim=True), chosen


class _Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(EXPERTS, 2 * WIDTH, WIDTH))
        self.down_proj = nn.Parameter(torch.zeros(EXPERTS, WIDTH, WIDTH))
        self.act_fn = nn.SiLU()

    def forward(self, x: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
        gate, up = torch.einsum("nd,efd->nef", x, self.gate_up_proj).chunk(2, dim=-1)
        each = torch.einsum("nef,edf->ned", self.act_fn(gate) * up, self.down_proj)
        taken = each.gather(1, chosen[..., None].expand(-1, -1, x.shape[1]))
        return (gates[..., None] * taken).sum(1)


ZOO_TASK = TaskRecord(
    name="zoo_task",
    target="fusionbench_core.testing.zoo:ZooTask",
    summary="three clusters of points, for the conformance kit",
    provides=("evaluate", "batches", "labels", "logits", "loss"),
    metrics=("accuracy", "loss"),
)


@implements(ZOO_TASK)
class ZooTask(ClassificationTask):
    """Clusters around three corners, rotated by a task's own matrix; the head is fixed."""

    seed: int = 0
    samples: int = 12
    tokens: bool = False

    def card(self) -> TaskCard:
        splits = {"train": self.samples, "validation": self.samples, "test": self.samples}
        return TaskCard(title="Zoo", version=1, source="drawn here", licence="CC0", splits=splits)

    def attach(self, trunk: nn.Module) -> nn.Module:
        return Attached(trunk, self.seed, VOCABULARY if self.tokens else WIDTH)

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(
            1000 * self.seed + ("train", "validation", "test").index(split)
        )
        labels = torch.arange(self.samples) % CLASSES
        if self.tokens:
            noise = torch.randint(0, 3, (self.samples, LENGTH), generator=generator)
            inputs = {"tokens": (labels[:, None] * 3 + noise + self.seed) % VOCABULARY}
        else:
            noise = torch.randn(self.samples, WIDTH, generator=generator, dtype=torch.float32)
            inputs = {"x": noise + 2 * F.one_hot((labels + self.seed) % WIDTH, WIDTH)}
        order = torch.arange(self.samples)
        if seed is not None:
            order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(seed))
        for rows in order[:limit].split(batch_size):
            taken = {name: tensor[rows] for name, tensor in inputs.items()}
            yield Batch(taken, labels[rows] if labelled else None, rows)

    def fingerprint(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class Attached(nn.Module):
    """A trunk with a fixed linear head."""

    def __init__(self, trunk: nn.Module, seed: int, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        generator = torch.Generator().manual_seed(77 + seed)
        head = torch.randn(CLASSES, width, generator=generator, dtype=torch.float32)
        self.register_buffer("head", head)

    def forward(self, **inputs: Tensor) -> Tensor:
        # Whatever precision the trunk has, the head is fp32.
        dtype = next(self.trunk.parameters()).dtype
        cast = [value.to(dtype) if value.is_floating_point() else value for value in inputs.values()]
        return self.trunk(*cast).float() @ self.head.T


ARCHITECTURES: dict[str, type[nn.Module]] = {
    "mlp": Mlp,
    "conv_bn": ConvBn,
    "tied_lm": TiedLm,
    "vit_tiny": VitTiny,
    "plain_lm": PlainLm,
    "mixtures": Mixtures,
}
"""Name -> class of its modules."""


def case(
    name: str = "mlp", *, count: int = 3, dtype: torch.dtype = torch.float32, seed: int = 0, samples: int = 12
) -> Case:
    """A case of the zoo.

    Args:
        name: `mlp`, `conv_bn`, `tied_lm`, `vit_tiny`, `plain_lm` or `mixtures`.
        count: Number of models, at most five.
        dtype: Floating dtype of all of them.
        seed: Another seed gives other weights.
        samples: Samples a split of each task.
    """
    base, *models = (_module(name, dtype, seed, index) for index in range(count + 1))
    named: dict[str, nn.Module] = dict(zip(NAMES, models))
    tasks = {
        task: ZooTask(name=task, seed=index, samples=samples, tokens=name.endswith("_lm"))
        for index, task in enumerate(named)
    }
    return Case(name, base, named, tasks)


def _module(name: str, dtype: torch.dtype, seed: int, index: int) -> nn.Module:
    return copy_of(_drawn(name, dtype, seed, index))


@lru_cache(maxsize=256)
def _drawn(name: str, dtype: torch.dtype, seed: int, index: int) -> nn.Module:
    """What copies are made of: drawn once, and never handed out."""
    with torch.random.fork_rng(devices=[]):
        module = ARCHITECTURES[name]()
    start = _draw(name, seed, 0)
    change = _draw(name, seed, index)
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point() and key in start:
                value = start[key] + (0.1 * change[key] if index else 0)
                # Variances of batch normalisation are positive.
                tensor.copy_(value.abs() + 0.5 if key.endswith("running_var") else value)
    return module.to(dtype).eval().requires_grad_(False)


@lru_cache(maxsize=64)
def _draw(name: str, seed: int, index: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(10_000 * seed + 100 * index + list(ARCHITECTURES).index(name))
    with torch.random.fork_rng(devices=[]):
        state = ARCHITECTURES[name]().state_dict()
    return {
        key: torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        for key, tensor in state.items()
        if tensor.is_floating_point() and key != "head.weight"
    }


def _changed(module: nn.Module, change: Callable[[str, Tensor], Tensor]) -> nn.Module:
    twin, state = copy_of(module), module.state_dict()
    with torch.no_grad():
        for key, tensor in twin.state_dict().items():
            tensor.copy_(change(key, state[key].clone()))
    return twin


def copy_of(module: nn.Module) -> nn.Module:
    """A copy of a module of the zoo; tensors that are tied stay tied.

    What `copy.deepcopy` gives, without looking at each attribute: checks make thousands of copies.
    """
    return _copied(module, {})


def _copied(module: nn.Module, seen: dict[int, Tensor]) -> nn.Module:
    twin = object.__new__(type(module))
    # Modules keep lists, sets and dicts of plain values, tensors and modules, and plain values.
    vars(twin).update(
        (name, value.copy() if isinstance(value, (dict, list, set)) else value)
        for name, value in vars(module).items()
    )
    for tensors in (twin._parameters, twin._buffers):
        for name, tensor in tensors.items():
            if tensor is not None:
                tensors[name] = seen[id(tensor)] = seen.get(id(tensor), _twin_of(tensor))  # type: ignore
    for name, child in twin._modules.items():
        twin._modules[name] = None if child is None else _copied(child, seen)
    return twin


def _twin_of(tensor: Tensor) -> Tensor:
    values = tensor.detach().clone()
    return nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's state dict; names that shared storage share it again."""
    copies: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    state = {}
    for key, tensor in module.state_dict().items():
        identity = (tensor.data_ptr(), tuple(tensor.shape)) if tensor.numel() else (id(tensor), ())
        state[key] = copies.setdefault(identity, tensor.clone()) if tensor.numel() else tensor.clone()
    return state
