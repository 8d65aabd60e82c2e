"""The methods of mergekit."""

from __future__ import annotations

from parity.case import SVD_IN_FLOAT32, Case, Why
from parity.fusion_bench_cases import NO_MATRIX

WEIGHTS = [0.5, 1.0, 2.0]
SMALL = ("single.value", "scalar.value")

CANCELLED = Why(
    ("*",), "where weighted updates cancel exactly, it elects the positive sign; in the formula there is none"
)
EQUAL = Why(
    ("equal_sizes.weight", "cancelling.weight"),
    "of equal magnitudes at the bound it keeps as many as fit, in the order of its sort; ours keeps all",
)
EQUAL_IN_BFLOAT16 = Why(("*",), EQUAL.reason, ("bfloat16",))
LINEAR = Why(
    ("changed_by_a.weight", "cancelling.weight"),
    "there is no arc to a vector that is 0, or opposite: ours interpolates linearly; it takes a right angle "
    "for the former, and divides by a sine of almost 0 for the latter",
)
NOTHING_KEPT = Why(
    SMALL, "it counts the kept entries down to whole ones, here to none; ours keeps one at least"
)
BY_CHANNEL = Why(
    ("conv.weight",),
    "it ranks along the second dimension of convolutions; ours in each output channel",
    ("draws",),
)

CASES = (
    Case(
        "linear", "weighted_average", {"weight": WEIGHTS}, {"weights": WEIGHTS}, base=False, their_base=None
    ),
    Case(
        "linear",
        "weighted_average",
        {"weight": WEIGHTS, "normalize": False},
        {"weights": WEIGHTS, "normalize": False},
        base=False,
        their_base=None,
    ),
    Case("linear", "simple_average", {"weight": 1.0}, base=False, their_base=None),
    Case("slerp", "slerp", {"t": 0.3}, {"t": 0.3}, models=("base", "a"), base=False),
    Case("nuslerp", "nuslerp", {"weight": [1.0, 2.0]}, {"weights": [1.0, 2.0]}, ("a", "b"), False, None),
    Case(
        "nuslerp",
        "nuslerp",
        {"weight": [1.0, 2.0], "nuslerp_flatten": False},
        {"weights": [1.0, 2.0], "vectors": "rows"},
        ("a", "b"),
        False,
        None,
    ),
    Case(
        "nuslerp",
        "nuslerp",
        {"weight": [1.0, 2.0], "nuslerp_flatten": False, "nuslerp_row_wise": True},
        {"weights": [1.0, 2.0], "vectors": "columns"},
        ("a", "b"),
        False,
        None,
    ),
    Case(
        "nuslerp",
        "nuslerp",
        {"weight": [1.0, 2.0]},
        {"weights": [1.0, 2.0], "space": "task_vectors"},
        ("a", "b"),
        why=(LINEAR,),
    ),
    Case("multislerp", "multislerp", {"weight": WEIGHTS}, {"weights": WEIGHTS}, base=False, their_base=None),
    Case("multislerp", "multislerp", {"weight": WEIGHTS}, {"weights": WEIGHTS, "space": "task_vectors"}),
    Case(
        "karcher",
        "karcher",
        {"max_iter": 50, "tol": 1e-7},
        {"max_iter": 50, "tolerance": 1e-7},
        base=False,
        their_base=None,
    ),
    Case("task_arithmetic", "task_arithmetic", {"weight": 1.0, "lambda": 0.3}, {"scaling_factor": 0.3}),
    Case(
        "task_arithmetic",
        "task_vector_merging",
        {"weight": WEIGHTS, "lambda": 0.7, "normalize": True},
        {"weights": WEIGHTS, "scaling_factor": 0.7, "combine": {"name": "sum", "normalize": True}},
    ),
    Case(
        "ties",
        "ties_merging",
        {"weight": 1.0, "density": 0.25},
        {"density": 0.25, "trim": "tensor"},
        why=(EQUAL, EQUAL_IN_BFLOAT16),
    ),
    Case(
        "ties",
        "ties_merging",
        {"weight": WEIGHTS, "density": 0.25, "normalize": False, "rescale": True, "lambda": 0.5},
        {
            "weights": WEIGHTS,
            "density": 0.25,
            "trim": "tensor",
            "merge_func": "sum",
            "rescale": "l1",
            "scaling_factor": 0.5,
        },
        why=(EQUAL, EQUAL_IN_BFLOAT16),
    ),
    Case(
        "dare_linear",
        "dare_linear",
        {"weight": WEIGHTS, "density": 1.0, "lambda": 0.5},
        {"weights": WEIGHTS, "density": 1.0, "scaling_factor": 0.5},
    ),
    Case(
        "dare_ties",
        "dare_ties",
        {"weight": WEIGHTS, "density": 1.0, "normalize": True},
        {"weights": WEIGHTS, "density": 1.0, "trim_density": 1.0},
        why=(CANCELLED,),
    ),
    Case(
        "dare_linear",
        "dare_linear",
        {"weight": 1.0, "density": 0.5, "lambda": 0.5},
        {"density": 0.5, "rescale": "l1", "scaling_factor": 0.5},
        draws=300,
    ),
    Case(
        "dare_ties",
        "dare_ties",
        {"weight": 1.0, "density": 0.5},
        {"density": 0.5, "rescale": "l1", "trim_density": 1.0, "merge_func": "sum"},
        draws=300,
    ),
    Case(
        "della",
        "della",
        {"weight": WEIGHTS, "density": 1.0},
        {"weights": WEIGHTS, "density": 1.0},
        why=(CANCELLED,),
    ),
    Case(
        "della_linear",
        "della_linear",
        {"weight": WEIGHTS, "density": 1.0, "lambda": 0.5},
        {"weights": WEIGHTS, "density": 1.0, "scaling_factor": 0.5},
    ),
    Case(
        "della",
        "della",
        {"weight": 1.0, "density": 0.5, "epsilon": 0.25, "rescale": False},
        {"density": 0.5, "epsilon": 0.25, "rescale": "none"},
        why=(BY_CHANNEL, Why(("cancelling.weight", "equal_sizes.weight"), CANCELLED.reason, ("draws",))),
        draws=300,
    ),
    Case(
        "della_linear",
        "della_linear",
        {"weight": 1.0, "density": 0.5, "epsilon": 0.25, "lambda": 0.5},
        {"density": 0.5, "epsilon": 0.25, "rescale": "l1", "scaling_factor": 0.5},
        why=(BY_CHANNEL,),
        draws=300,
    ),
    Case(
        "breadcrumbs",
        "breadcrumbs",
        {"weight": WEIGHTS, "density": 0.5, "gamma": 0.25, "lambda": 0.5},
        {"weights": WEIGHTS, "density": 0.5, "gamma": 0.25, "scaling_factor": 0.5},
        why=(NOTHING_KEPT, EQUAL, EQUAL_IN_BFLOAT16),
    ),
    Case(
        "breadcrumbs_ties",
        "breadcrumbs_ties",
        {"weight": 1.0, "density": 0.5, "gamma": 0.25, "rescale": True},
        {"density": 0.5, "gamma": 0.25, "merge_func": "sum", "rescale": "l1"},
        why=(NOTHING_KEPT, EQUAL, EQUAL_IN_BFLOAT16),
    ),
    Case("sce", "sce", {"select_topk": 0.5}, {"density": 0.5}, why=(NOTHING_KEPT, EQUAL, CANCELLED)),
    Case("sce", "sce", {"select_topk": 1.0}, {"density": 1.0}, why=(CANCELLED,)),
    Case("model_stock", "model_stock", {}, {"extrapolate": True}),
    Case(
        "model_stock",
        "model_stock",
        {"filter_wise": True},
        {"extrapolate": True, "granularity": "row"},
        why=(
            Why(
                ("conv.weight",),
                "its filters of a convolution are runs along the last dimension; ours are output channels",
            ),
        ),
    ),
    Case("nearswap", "nearswap", {"t": 0.1}, {"t": 0.1}, ("a",)),
    Case(
        "arcee_fusion",
        "arcee_fusion",
        models=("a",),
        why=(
            Why(
                ("close.weight",),
                "divergences of close models are below the rounding of its float32; ours are in float64",
                ("float32",),
            ),
        ),
    ),
    Case("passthrough", "passthrough", {"scale": 0.5}, {"scale": 0.5}, ("a",), False, None),
    Case("ram", "ram", {"epsilon": 0.1}, {"epsilon": 0.1}),
    Case(
        "ramplus_tl",
        "ramplus",
        {"r": 0.5, "alpha": 2.0, "epsilon": 0.3},
        {"r": 0.5, "alpha": 2.0, "epsilon": 0.3, "granularity": "tensor"},
    ),
    Case(
        "extract_lora",
        "low_rank",
        {"max_rank": 4, "sv_epsilon": 0, "transpose": False, "distribute_scale": True},
        {"rank": 4},
        ("a",),
        without=NO_MATRIX,
        bounds=SVD_IN_FLOAT32,
        note="the base plus the product of its factors",
    ),
)
