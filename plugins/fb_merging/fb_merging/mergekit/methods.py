"""mergekit's merge methods: which of ours each is, and what its parameters are called here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

REQUIRED: Any = object()
"""The default of a parameter that must be given."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a merge method.

    Attributes:
        theirs: Its name in mergekit.
        ours: Its name here; None where it changes no result.
        default: mergekit's default.
        each: Whether it is one number a model, here as there.
        of_source: Whether mergekit reads it from the parameters of a model, too.
        by_name: Whether ours wants a number for each model even where all are the same.
        varies: Whether it may differ from tensor to tensor here.
        read: From a value of theirs to one of ours.
        only: The one value that can be had here; None: all.
    """

    theirs: str
    ours: str | None
    default: Any = REQUIRED
    each: bool = False
    of_source: bool = False
    by_name: bool = False
    varies: bool = True
    read: Callable[[Any], Any] = float
    only: Any = None


@dataclass(frozen=True)
class MergeMethod:
    """One merge method.

    Attributes:
        ours: Name of the method here.
        base: What the base model is: `apart` from the models, as task vectors need it; `first` of two
            models; or an `input` like the others.
        needs_base: Whether there must be one.
        parameters: Its parameters.
        always: Parameters of ours that make the method mergekit's.
        with_base: The same, where there is a base.
    """

    ours: str
    base: Literal["apart", "first", "input"] = "apart"
    needs_base: bool = True
    parameters: tuple[Parameter, ...] = ()
    always: Mapping[str, Any] = field(default_factory=dict)
    with_base: Mapping[str, Any] = field(default_factory=dict)


def _true(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("it must be true or false")


def _merge_func(normalize: Any) -> str:
    return "mean" if _true(normalize) else "sum"


def _rescale(rescale: Any) -> str:
    return "l1" if _true(rescale) else "none"


def _task_vectors(normalize: bool, *, election: bool, rescale: bool | None) -> tuple[Parameter, ...]:
    """What the methods on task vectors have in common."""
    return (
        Parameter("weight", "weights", each=True, of_source=True),
        Parameter("lambda", "scaling_factor", 1.0),
        Parameter("normalize", "merge_func", normalize, varies=False, read=_merge_func)
        if election
        else Parameter("normalize", "normalize", normalize, varies=False, read=_true),
        Parameter("rescale", None, False, read=_true)
        if rescale is None
        else Parameter("rescale", "rescale", rescale, varies=False, read=_rescale),
        Parameter("int8_mask", None, False, read=_true),
    )


_DENSITY = Parameter("density", "density", 1.0, each=True, of_source=True)
_GAMMA = Parameter("gamma", "gamma", 0.01, of_source=True)
_EPSILON = Parameter("epsilon", "epsilon", 0.15, of_source=True)
_WEIGHT = Parameter("weight", "weights", each=True, of_source=True)

METHODS: Mapping[str, MergeMethod] = {
    "linear": MergeMethod(
        "weighted_average",
        base="input",
        needs_base=False,
        parameters=(
            Parameter("weight", "weights", each=True, of_source=True, by_name=True),
            Parameter("normalize", "normalize", True, varies=False, read=_true),
        ),
    ),
    "slerp": MergeMethod("slerp", base="first", parameters=(Parameter("t", "t"),)),
    "nuslerp": MergeMethod(
        "nuslerp",
        needs_base=False,
        parameters=(
            _WEIGHT,
            Parameter("nuslerp_flatten", "nuslerp_flatten", True, varies=False, read=_true),
            Parameter("nuslerp_row_wise", "nuslerp_row_wise", False, varies=False, read=_true),
        ),
        with_base={"space": "task_vectors"},
    ),
    "multislerp": MergeMethod(
        "multislerp",
        needs_base=False,
        parameters=(
            _WEIGHT,
            Parameter("normalize_weights", None, True, varies=False, read=_true, only=True),
            Parameter("eps", None, 1e-8),
        ),
        with_base={"space": "task_vectors"},
    ),
    "karcher": MergeMethod(
        "karcher",
        base="input",
        needs_base=False,
        parameters=(
            Parameter("max_iter", "max_iter", 10, read=int),
            Parameter("tol", "tolerance", 1e-5),
        ),
    ),
    "task_arithmetic": MergeMethod(
        "task_vector_merging",
        parameters=(
            *_task_vectors(False, election=False, rescale=None),
            Parameter("density", None, 1.0, each=True, of_source=True),
        ),
    ),
    "ties": MergeMethod(
        "ties_merging",
        parameters=(_DENSITY, *_task_vectors(True, election=True, rescale=False)),
        always={"trim": "tensor"},
    ),
    "dare_linear": MergeMethod(
        "dare_linear", parameters=(_DENSITY, *_task_vectors(False, election=False, rescale=True))
    ),
    "dare_ties": MergeMethod(
        "dare_ties",
        parameters=(_DENSITY, *_task_vectors(False, election=True, rescale=True)),
        always={"trim_density": 1.0},
    ),
    "breadcrumbs": MergeMethod(
        "breadcrumbs", parameters=(_DENSITY, _GAMMA, *_task_vectors(False, election=False, rescale=False))
    ),
    "breadcrumbs_ties": MergeMethod(
        "breadcrumbs_ties", parameters=(_DENSITY, _GAMMA, *_task_vectors(False, election=True, rescale=False))
    ),
    "della": MergeMethod(
        "della", parameters=(_DENSITY, _EPSILON, *_task_vectors(True, election=True, rescale=True))
    ),
    "della_linear": MergeMethod(
        "della_linear", parameters=(_DENSITY, _EPSILON, *_task_vectors(False, election=False, rescale=True))
    ),
    "sce": MergeMethod(
        "sce",
        parameters=(
            Parameter("select_topk", "density", 1.0),
            Parameter("int8_mask", None, False, read=_true),
        ),
    ),
    "model_stock": MergeMethod(
        "model_stock",
        parameters=(
            Parameter(
                "filter_wise",
                "granularity",
                False,
                varies=False,
                read=lambda value: "row" if _true(value) else "tensor",
            ),
        ),
        always={"extrapolate": True},
    ),
    "nearswap": MergeMethod("nearswap", parameters=(Parameter("t", "t"),)),
    "arcee_fusion": MergeMethod("arcee_fusion"),
    "ram": MergeMethod("ram", parameters=(Parameter("epsilon", "epsilon", 1e-5),)),
    "ramplus_tl": MergeMethod(
        "ramplus",
        parameters=(
            Parameter("epsilon", "epsilon", 1e-5),
            Parameter("r", "r", 0.1),
            Parameter("alpha", "alpha", 0.2),
        ),
        always={"granularity": "tensor"},
    ),
    "passthrough": MergeMethod(
        "passthrough",
        base="input",
        needs_base=False,
        parameters=(Parameter("scale", "scale", 1.0, of_source=True),),
    ),
}
"""mergekit's name -> the method."""


def finished(theirs: str, parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Our method, and its parameters where several of theirs make one of ours."""
    ours = METHODS[theirs].ours
    if theirs == "nuslerp":
        flatten, by_column = parameters.pop("nuslerp_flatten"), parameters.pop("nuslerp_row_wise")
        parameters["vectors"] = "tensor" if flatten else "columns" if by_column else "rows"
    if theirs == "task_arithmetic":
        normalize = parameters.pop("normalize")
        if not normalize and parameters.get("weights") == 1.0:
            ours = "task_arithmetic"
            del parameters["weights"]
        else:
            parameters["combine"] = {"name": "sum", "normalize": normalize}
    return ours, parameters
