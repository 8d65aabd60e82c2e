"""Methods that fusion_bench has in parts, or for CLIP and Llama alone: its own functions, put together.

Each takes a model pool and the parameters of a case, and gives a module, or one for each task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

Vectors = list[Tensor]


def _flat(module: nn.Module) -> Tensor:
    from fusion_bench.utils.parameters import state_dict_to_vector

    return state_dict_to_vector(module.state_dict())


def _with(pool: Any, vector: Tensor) -> nn.Module:
    """A copy of the base, with the entries of a vector."""
    from fusion_bench.utils.parameters import vector_to_state_dict

    module = pool.load_pretrained_model()
    module.load_state_dict(vector_to_state_dict(vector, module.state_dict()))
    return module


def _models(pool: Any) -> dict[str, nn.Module]:
    return {name: pool.load_model(name) for name in pool.model_names}


def _matrices(pool: Any) -> Iterator[tuple[str, Tensor, Vectors]]:
    """Name, base and models of every matrix."""
    states = [module.state_dict() for module in _models(pool).values()]
    for name, base in pool.load_pretrained_model().state_dict().items():
        if base.dim() == 2:
            yield name, base, [state[name] for state in states]


def _replaced(module: nn.Module, matrices: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(matrices, strict=False)
    return module


def emr(pool: Any) -> dict[str, nn.Module]:
    """Its merge, told each task."""
    merge = import_module("fusion_bench.method.emr_merging").EMRMerging()
    found = {}
    for name in pool.model_names:
        model = merge.run(pool)
        model.set_task(name)
        found[name] = model.backbone
    return found


def _masked(pool: Any, tall_mask_lambda: float, use_ties: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The base, the merged task vector, and its masks."""
    from fusion_bench.method.tall_mask.utils import generate_task_masks
    from fusion_bench.method.ties_merging.ties_merging_utils import ties_merging

    start = _flat(pool.load_pretrained_model())
    tuned = torch.stack([_flat(model) for model in _models(pool).values()])
    updates = tuned - start
    merged = ties_merging(updates.clone(), reset_thresh=20, merge_func="sum") if use_ties else updates.sum(0)
    masks = generate_task_masks(updates, tuned, start, tv=merged, tall_mask_lambda=tall_mask_lambda)
    return start, merged, masks


def consensus(
    pool: Any, tall_mask_lambda: float, prune_threshold: int, scaling_factor: float, use_ties: bool = False
) -> nn.Module:
    """Its masks, counted and multiplied as its `construct_consensus_mask` does with files."""
    start, merged, masks = _masked(pool, tall_mask_lambda, use_ties)
    kept = masks.float().sum(0) >= prune_threshold
    return _with(pool, start + scaling_factor * kept * merged)


def tall_masks(pool: Any, tall_mask_lambda: float) -> dict[str, nn.Module]:
    """Its masks, multiplied as its `TallMaskTaskArithmeticAlgorithm` does."""
    start, merged, masks = _masked(pool, tall_mask_lambda, use_ties=False)
    return {name: _with(pool, start + mask * merged) for name, mask in zip(pool.model_names, masks)}


def superposed(pool: Any, scaling_factor: float, **parameters: Any) -> dict[str, nn.Module]:
    """Its superposition, added as its `SuperposedTaskArithmeticAlgorithm` does."""
    from fusion_bench.method.randes.task_arithmetic import SuperposedTaskArithmeticAlgorithm

    algorithm = SuperposedTaskArithmeticAlgorithm(
        scaling_factor=scaling_factor,
        # Draws go by the seed of torch, and models by a seed each.
        random_seed=10 * torch.initial_seed(),
        **parameters,
    )
    base = pool.load_pretrained_model().state_dict()

    def added(update: dict[str, Tensor]) -> dict[str, Tensor]:
        # Vectors come back as matrices of one row.
        return {key: x + scaling_factor * update[key].view_as(x) for key, x in base.items()}

    updates = {
        name: {key: tensor - base[key] for key, tensor in model.state_dict().items()}
        for name, model in _models(pool).items()
    }
    found, _ = algorithm._compress_and_retrieve(updates, mode="superposed_task_arithmetic")
    return {name: _replaced(pool.load_pretrained_model(), added(found[name])) for name in pool.model_names}


def binary_diff(pool: Any) -> dict[str, nn.Module]:
    """Its packed signs and initial scales, unpacked as its `load_diff` does."""
    from fusion_bench.method.bitdelta.bitdelta_utils.binary_gemm_kernel import unpack
    from fusion_bench.method.bitdelta.bitdelta_utils.diff import BinaryDiff

    found: dict[str, dict[str, Tensor]] = {name: {} for name in pool.model_names}
    for key, base, tuned in _matrices(pool):
        for name, matrix in zip(pool.model_names, tuned):
            packed = BinaryDiff(base, matrix)
            signs = (unpack(packed.mask) * 2 - 1) * packed.coeff
            found[name][key] = base + signs.T.to(base.dtype)
    return {name: _replaced(module, found[name]) for name, module in _models(pool).items()}


def pruned(function: str, pool: Any, random: bool = False, **parameters: Any) -> nn.Module:
    """Its functions on every matrix, as its pruning of Llamas does with those of linear layers."""
    from fusion_bench.method.pruning import prune_utils

    prune = getattr(prune_utils, function)
    score: Callable[[Tensor], Tensor] = torch.rand_like if random else torch.abs
    (module,) = _models(pool).values()
    state = module.state_dict()
    matrices = {name: x.clone() for name, x in state.items() if x.dim() == 2}
    return _replaced(module, {name: prune(x, score, **parameters) for name, x in matrices.items()})


def knots(pool: Any, threshold: float, merge_func: str, scaling_factor: float) -> nn.Module:
    """Its alignment and its TIES, matrix by matrix."""
    from fusion_bench.method.knots.knots_utils import subspace_alignment
    from fusion_bench.method.ties_merging.ties_merging_utils import ties_merging

    found = {}
    for key, base, tuned in _matrices(pool):
        u, s, vhs = subspace_alignment([matrix - base for matrix in tuned])
        aligned = torch.stack([(s[:, None] * vh).flatten() for vh in vhs])
        merged = ties_merging(aligned, reset_thresh=threshold, merge_func=merge_func)
        found[key] = base + scaling_factor * u @ merged.view(len(s), -1)
    return _replaced(pool.load_pretrained_model(), found)


def continual(place: str, pool: Any, **parameters: Any) -> nn.Module:
    """Its algorithm, which gets a task pool without data sets."""
    module, _, algorithm = place.partition(":")
    found = getattr(import_module(f"fusion_bench.method.opcm.{module}"), algorithm)
    made = found(shuffle_order=False, save_on_every_step=False, **parameters)
    made._program = SimpleNamespace(taskpool=SimpleNamespace(_test_datasets={}))
    with torch.no_grad():
        return made.run(pool)


def doge(pool: Any, **parameters: Any) -> nn.Module:
    """Its algorithm, on layers renamed so that it takes them, and back again."""
    from fusion_bench import BaseModelPool
    from fusion_bench.method.doge_ta.doge_ta import DOGE_TA_Algorithm

    names = ["_pretrained_", *pool.model_names]
    given = {name: pool.load_model(name) for name in names}
    renamed = {name: nn.ModuleDict({"encoder": module}) for name, module in given.items()}
    return DOGE_TA_Algorithm(**parameters).run(BaseModelPool(renamed))["encoder"]


PARTS: dict[str, Callable[..., nn.Module | dict[str, nn.Module]]] = {
    "BinaryDiff": binary_diff,
    "ContinualTaskArithmeticForCLIP": partial(continual, "task_arithmetic:ContinualTaskArithmeticForCLIP"),
    "ContinualTiesMergingForCLIP": partial(continual, "ties_merging:ContinualTiesMergingForCLIP"),
    "ContinualWeightAverageForCLIP": partial(continual, "weight_average:ContinualWeightAverageForCLIP"),
    "DOGE_TA_Algorithm": doge,
    "EMRMerging": emr,
    "SuperposedTaskArithmeticAlgorithm": superposed,
    "TALL_masks": consensus,
    "TallMaskTaskArithmeticAlgorithm": tall_masks,
    "semistructured_magnitude_prune_": partial(pruned, "semistructured_magnitude_prune_"),
    "subspace_alignment": knots,
    "unstructured_magnitude_prune_": partial(pruned, "unstructured_magnitude_prune_"),
}
"""Name in the tables -> what stands for it."""
