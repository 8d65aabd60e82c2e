"""The methods of fusion_bench that merge any module, without data."""

from __future__ import annotations

import torch

from parity.case import SVD_IN_FLOAT32, Case, Why
from parity.models import make_models

BUFFERS = ("steps", "positions", "flags")
UNTIED = ("head.weight", *BUFFERS)

_ENTRIES = sum(x.numel() for name, x in make_models(0, torch.float32)["base"].items() if name not in UNTIED)
KEPT = (int(0.2 * _ENTRIES) + 1) / _ENTRIES
"""The fraction of all entries that its TIES keeps for a threshold of 20: those at the 20 % or above."""

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

_TIES = {"threshold": 20, "remove_keys": []}
_DARE = {"sparsity_ratio": 0.0, "only_on_linear_weights": False, "rescale": True}
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
    "doge_ta": "fusion_bench's takes parameters with `encoder` in their names alone",
    "continual_task_arithmetic": "fusion_bench's takes CLIP models with a task pool alone",
    "continual_ties_merging": "fusion_bench's takes CLIP models with a task pool alone",
    "continual_average": "fusion_bench's takes CLIP models with a task pool alone",
    "knots": "fusion_bench has the alignment, not the merge",
    "consensus_ties": "fusion_bench has the masks of task arithmetic alone",
}
"""Methods of ours that a peer has in some form -> why they are not compared."""
