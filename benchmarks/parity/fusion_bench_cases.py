"""The methods of fusion_bench that need no data."""

from __future__ import annotations

import torch

from parity.case import SVD_IN_FLOAT32, Case, Why
from parity.models import make_models

BUFFERS = ("steps", "positions", "flags")
UNTIED = ("head.weight", *BUFFERS)

_BASE = make_models(0, torch.float32)["base"]
NO_MATRIX = tuple(name for name, tensor in _BASE.items() if tensor.dim() != 2)


def _kept(density: float, without: tuple[str, ...]) -> float:
    """The fraction of all entries that it keeps for a threshold: those at that one or above."""
    entries = sum(tensor.numel() for name, tensor in _BASE.items() if name not in without)
    return (int(density * entries) + 1) / entries


KEPT = _kept(0.2, UNTIED)

AVERAGED = Why(
    BUFFERS,
    "it merges counters, position ids and masks like weights, cut to their dtype; ours takes what "
    "`engine.integers` says",
)
CANCELLED = Why(
    ("cancelling.weight",),
    "where updates cancel exactly, it takes the sign of the majority of all entries; "
    "in the formula there is none",
)
NO_RATIO = Why(
    ("cancelling.weight", "single.value", "scalar.value"),
    "where the ratio has no finite value, it divides by 1e-8; ours leaves the base",
)
ANGLES = Why(("*",), "it averages the angles of pairs, the paper their cosines", ("float32", "bfloat16"))
NOISE = Why(
    ("low_rank.weight",),
    "directions beyond the rank of the updates are rounding errors, which float32 and float64 "
    "find differently",
    ("float32",),
)
ARBITRARY = Why(
    ("changed_by_a.weight", "cancelling.weight"),
    "task matrices that are 0 or multiples of each other give it arbitrary directions; ours leaves them out",
)

MEANS = Why(
    ("*",), "it adds up the means of all tensors; the paper, and ours, take the norm of the whole model"
)
FIRST_DROPPED = Why(
    ("equal_sizes.weight", "cancelling.weight", "unchanged.weight", "changed_by_a.weight", "sparse.weight"),
    "of equal magnitudes it drops the first; ours keeps the first",
)
FIRST_DROPPED_IN_BFLOAT16 = Why(("*",), FIRST_DROPPED.reason, ("bfloat16",))
SIGN_OF_0 = Why(
    ("packed.weight",),
    "updates of 0, frequent in bfloat16, have the sign 1 in its code, and -1 in the paper",
    ("bfloat16",),
)
SINGLE_COLUMN = Why(("column.weight",), "it drops one of a block even where there is one alone")
NOT_LINEAR = Why(
    ("embed.weight", "square.bias", "norm.weight", "conv.weight", "single.value", "scalar.value"),
    "parameters other than those of linear layers become the base's; here tensors that are no matrix stay "
    "the model's, and embeddings are pruned",
)

_DOGE = (*UNTIED, "unchanged.weight", "changed_by_a.weight", "cancelling.weight")
_TIES = {"threshold": 20, "remove_keys": []}
_DARE = {"sparsity_ratio": 0.0, "only_on_linear_weights": False, "rescale": True}
_RANDES = {
    "mode": "random_binary_diagonal_matrix",
    "target_layer": ["all"],
    "different_across_layers": True,
    "joint_matrix_mode": "none",
    "rank": 1,
    "random_components": False,
    "shift_layers": 0,
    "absorber": "None",
    "debug": 0,
    "ms_mode": "none",
    "verbose": 0,
    "dropout_rate": 1,
}
_CONTINUAL = {"shuffle_order": False, "save_on_every_step": False}

CASES = (
    Case("SimpleAverageAlgorithm", "simple_average", base=False, their_base=None, why=(AVERAGED,)),
    Case(
        "WeightedAverageAlgorithm",
        "weighted_average",
        {"weights": [0.5, 1.0, 2.0], "normalize": True, "verbose": False},
        {"weights": [0.5, 1.0, 2.0]},
        base=False,
        their_base=None,
        why=(AVERAGED,),
    ),
    Case(
        "WeightedAverageAlgorithm",
        "weighted_average",
        {"weights": [0.5, 1.0, 2.0], "normalize": False, "verbose": False},
        {"weights": [0.5, 1.0, 2.0], "normalize": False},
        base=False,
        their_base=None,
        why=(AVERAGED,),
    ),
    Case(
        "LinearInterpolationAlgorithm",
        "linear_interpolation",
        {"t": 0.3},
        {"t": 0.3},
        ("a", "b"),
        False,
        None,
        note="it compares a list of names with 2, and so refuses any models",
    ),
    Case("SlerpMergeAlgorithm", "slerp", {"t": 0.3}, {"t": 0.3}, ("a", "b"), False, None, why=(AVERAGED,)),
    Case("ExPOAlgorithm", "expo", {"extrapolation_factor": 0.3}, {"extrapolation_factor": 0.3}, ("a",)),
    Case("ExPOAlgorithm", "expo", {"extrapolation_factor": 0.3}, {"extrapolation_factor": 0.3}),
    Case("TaskArithmeticAlgorithm", "task_arithmetic", {"scaling_factor": 0.3}, {"scaling_factor": 0.3}),
    *(
        Case(
            "TiesMergingAlgorithm",
            "ties_merging",
            {**_TIES, "merge_func": merge_func, "scaling_factor": 0.3},
            {"density": KEPT, "merge_func": merge_func, "scaling_factor": 0.3},
            without=UNTIED,
            why=(CANCELLED,),
        )
        for merge_func in ("sum", "mean", "max")
    ),
    Case("DareSimpleAverage", "dare_simple_average", _DARE, {"density": 1.0}),
    Case("DareTaskArithmetic", "dare_linear", {**_DARE, "scaling_factor": 0.3}, {"density": 1.0}),
    Case(
        "DareTiesMerging",
        "dare_ties",
        {**_DARE, **_TIES, "merge_func": "mean", "scaling_factor": 1.0},
        {"density": 1.0, "trim_density": KEPT},
        without=UNTIED,
        why=(CANCELLED,),
    ),
    Case(
        "DareTaskArithmetic",
        "dare_linear",
        {**_DARE, "sparsity_ratio": 0.5, "scaling_factor": 0.3},
        {"density": 0.5},
        without=UNTIED,
        draws=300,
    ),
    Case(
        "MagMaxAlgorithm",
        "magmax",
        {"scaling_factor": 0.5},
        {"scaling_factor": 0.5},
        why=(
            Why(
                ("*",),
                "of an update and its negative it takes that of the later model; ours the positive one, "
                "whatever the order",
            ),
        ),
    ),
    Case(
        "ModelStock", "model_stock", {}, {"extrapolate": True}, ("a", "b"), without=BUFFERS, why=(NO_RATIO,)
    ),
    Case("ModelStock", "model_stock", {}, {"extrapolate": True}, without=BUFFERS, why=(NO_RATIO, ANGLES)),
    Case(
        "TaskSingularVectorMerging",
        "tsv_merging",
        {"alpha": 0.7},
        {"scaling_factor": 0.7},
        why=(
            NOISE,
            ARBITRARY,
            Why(
                ("column.weight",),
                "it keeps a third of one direction, rounded down to none; ours keeps one at least",
            ),
        ),
        bounds=SVD_IN_FLOAT32,
    ),
    Case(
        "ISO_C_Merge",
        "iso_c",
        {"scaling_factor": 0.7},
        {"scaling_factor": 0.7},
        why=(NOISE,),
        bounds=SVD_IN_FLOAT32,
    ),
    Case(
        "ISO_CTS_Merge",
        "iso_cts",
        {"scaling_factor": 0.7, "common_space_fraction": 0.6},
        {"scaling_factor": 0.7, "common_space_fraction": 0.6},
        why=(NOISE, ARBITRARY),
        bounds=SVD_IN_FLOAT32,
    ),
    Case(
        "WUDIMerging",
        "wudi_merging",
        {"iter_num": 300},
        why=(
            Why(
                ("unchanged.weight", "changed_by_a.weight", "cancelling.weight"),
                "a task matrix that is 0 makes it divide by 0, and the whole tensor NaN",
            ),
        ),
        bounds=SVD_IN_FLOAT32,
    ),
    Case(
        "TALL_masks",
        "consensus_ta",
        {"tall_mask_lambda": 0.4, "prune_threshold": 2, "scaling_factor": 0.3},
        {"tall_lambda": 0.4},
        without=BUFFERS,
        note="its masks; their sum and the product with the task vectors as in its construct_consensus_mask",
    ),
    Case(
        "TALL_masks",
        "consensus_ties",
        {"tall_mask_lambda": 0.4, "prune_threshold": 2, "scaling_factor": 0.3, "use_ties": True},
        {"tall_lambda": 0.4, "density": KEPT, "merge_func": "sum"},
        without=UNTIED,
        why=(CANCELLED,),
        note="its masks and its TIES; the rest as in its construct_consensus_mask",
    ),
    Case(
        "TallMaskTaskArithmeticAlgorithm",
        "tall_mask",
        {"tall_mask_lambda": 0.4},
        {"tall_lambda": 0.4},
        without=BUFFERS,
        tasks=True,
        note="run as it is, it compares task vectors with weights, and fails on parameters; this is its "
        "multiplication with its masks of vectors",
    ),
    Case(
        "EMRMerging",
        "emr_merging",
        without=tuple(name for name in _BASE if name != "square.weight"),
        tasks=True,
        note="on one tensor; the next row is on all",
    ),
    Case("EMRMerging", "emr_merging", without=UNTIED, tasks=True, why=(MEANS,)),
    Case(
        "SuperposedTaskArithmeticAlgorithm",
        "randes",
        {"scaling_factor": 0.5, **_RANDES},
        {"scaling_factor": 0.5},
        without=(*UNTIED, "scalar.value"),
        tasks=True,
        draws=300,
        note="run as it is, it fails on parameters; this is its superposition, added to the base",
    ),
    Case(
        "BinaryDiff",
        "bitdelta",
        models=("a",),
        without=tuple(name for name in _BASE if name != "packed.weight"),
        why=(SIGN_OF_0,),
        note="it packs 32 inputs into an integer, so it takes matrices of multiples of 32 columns alone",
    ),
    Case(
        "BinaryDiff",
        "packed_bitdelta",
        without=tuple(name for name in _BASE if name != "packed.weight"),
        tasks=True,
        why=(SIGN_OF_0,),
    ),
    Case(
        "unstructured_magnitude_prune_",
        "magnitude_pruning",
        {"sparsity_ratio": 0.5},
        {"density": 0.5},
        models=("a",),
        without=UNTIED,
        why=(FIRST_DROPPED, SINGLE_COLUMN, FIRST_DROPPED_IN_BFLOAT16),
        note="its algorithm takes Llamas alone",
    ),
    Case(
        "semistructured_magnitude_prune_",
        "magnitude_pruning",
        {"n": 1, "m": 4},
        {"n": 3, "m": 4},
        models=("a",),
        without=UNTIED,
        why=(FIRST_DROPPED, SINGLE_COLUMN, FIRST_DROPPED_IN_BFLOAT16),
        note="its n counts the entries that go, ours those that stay",
    ),
    Case(
        "unstructured_magnitude_prune_",
        "random_pruning",
        {"sparsity_ratio": 0.5, "random": True},
        {"density": 0.5},
        models=("a",),
        without=UNTIED,
        draws=300,
    ),
    Case(
        "MagnitudeDiffPruningAlgorithm",
        "magnitude_diff_pruning",
        {"prune_ratio": 0.25, "prune_type": "minor"},
        {"density": 0.75},
        models=("a",),
        without=UNTIED,
        why=(FIRST_DROPPED, NOT_LINEAR, FIRST_DROPPED_IN_BFLOAT16),
    ),
    Case(
        "MagnitudeDiffPruningAlgorithm",
        "magnitude_diff_pruning",
        {"prune_ratio": 0.5, "prune_type": "major", "rescale": True},
        {"density": 0.5, "keep": "smallest", "rescale": True},
        models=("a",),
        without=UNTIED,
        why=(FIRST_DROPPED, NOT_LINEAR, FIRST_DROPPED_IN_BFLOAT16),
        note="it rescales by the fraction that goes, which is right for one half alone",
    ),
    Case(
        "subspace_alignment",
        "knots",
        {"threshold": 20, "merge_func": "mean", "scaling_factor": 1.0},
        {"density": 0.2015},
        without=tuple(n for n in _BASE if n not in ("square.weight", "tall.weight", "wide.weight")),
        bounds=SVD_IN_FLOAT32,
        note="its alignment and its TIES, put together; it has no such method",
    ),
    Case(
        "DOGE_TA_Algorithm",
        "doge_ta",
        {"subspace": 6, "K": 30, "lamda": 0.07},
        {"density": _kept(0.3, (*_DOGE, *NO_MATRIX))},
        without=(*_DOGE, *NO_MATRIX),
        bounds=SVD_IN_FLOAT32,
        why=(NOISE,),
        note="it takes parameters with `encoder` in their names alone, so they are renamed for it; a task "
        "matrix that is 0 makes it divide by 0",
    ),
    Case(
        "ContinualTaskArithmeticForCLIP",
        "continual_task_arithmetic",
        {"scaling_factor": 0.3},
        note="with a task pool that has no data sets",
    ),
    Case("ContinualWeightAverageForCLIP", "continual_average", base=False, their_base=None),
    Case(
        "ContinualTiesMergingForCLIP",
        "continual_ties_merging",
        {"scaling_factor": 0.5, "threshold": 20},
        {"density": _kept(0.2, tuple(name for name in _BASE if name != "square.weight"))},
        without=tuple(name for name in _BASE if name != "square.weight"),
        note="on one tensor; the next row is on all",
    ),
    Case(
        "ContinualTiesMergingForCLIP",
        "continual_ties_merging",
        {"scaling_factor": 0.5, "threshold": 20},
        {"density": KEPT},
        without=UNTIED,
        why=(Why(("*",), "it takes one threshold over the whole model at each step, ours one a tensor"),),
    ),
    Case(
        "SingularValueCalibrationWithBaseMethod",
        "singular_value_calibration",
        {
            "base_method": {"_target_": "fusion_bench.method.TiesMergingAlgorithm", **_TIES}
            | {"merge_func": "sum", "scaling_factor": 0.3},
            "alpha": 0.1,
        },
        {
            "method": {
                "name": "ties_merging",
                "density": KEPT,
                "merge_func": "sum",
                "scaling_factor": 0.3,
            },
            "alpha": 0.1,
        },
        without=UNTIED,
        why=(CANCELLED,),
    ),
    Case(
        "SingularValueCalibrationArithmeticTask",
        "singular_value_calibration",
        {"scaling_factor": 0.3, "alpha": 0.1},
        {"method": {"name": "task_arithmetic", "scaling_factor": 0.3}, "alpha": 0.1},
    ),
    Case(
        "OPCM",
        "opcm",
        {"alpha": 0.5, **_CONTINUAL},
        {"exclude": ["embed.weight"]},
        without=(*UNTIED, "low_rank.weight", "equal_sizes.weight"),
        bounds=SVD_IN_FLOAT32,
        note="it takes embeddings for no matrices; directions of singular value 0 are arbitrary to it, so "
        "tensors without full rank are left out",
    ),
    Case(
        "DOPMerging",
        "dop",
        {"alpha": 0.8, "ema_beta": 0.999, "svd_epsilon": 0.99999, "num_steps": 20, "lr": 0.01, **_CONTINUAL},
        {"iterations": 20, "learning_rate": 0.01, "exclude": ["embed.weight"]},
        ("a", "b"),
        without=(*UNTIED, "unchanged.weight", "changed_by_a.weight", "column.weight"),
        bounds=SVD_IN_FLOAT32,
        why=(Why(("*",), "it leaves out the singular triplet that reaches `svd_epsilon`; ours takes it in"),),
        note="it fails for task matrices of rank 0 and 1, so they are left out",
    ),
)

NOT_COMPARED = {
    "adamerging": "needs tasks",
    "regmean": "needs tasks",
    "regmean_plusplus": "needs tasks",
    "fisher_merging": "needs tasks",
    "task_arithmetic_trust_region": "needs tasks",
    "concrete_task_arithmetic": "needs tasks",
    "concrete_adamerging": "needs tasks",
    "doge_adamerging": "needs tasks",
    "fw_merging": "needs tasks",
    "surgery": "needs tasks",
    "safe_concrete_adamerging": "needs tasks",
    "post_defense_awm": "needs tasks",
    "post_defense_sau": "needs tasks",
    "gossip": "needs tasks",
    "wanda_pruning": "needs tasks",
    "lora_extract": "what mergekit extracts is compared with `low_rank`, the product of the same factors",
}
"""Methods of ours that a peer has in some form -> why they are not compared."""
