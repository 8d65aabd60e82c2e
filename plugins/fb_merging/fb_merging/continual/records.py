"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fb_merging.task_vectors.records import TASK_VECTOR_LAWS
from fusionbench_core.records import Capabilities, Law, MethodRecord, Paper

_OPCM = Paper(
    title=(
        "Merging on the Fly Without Retraining: A Sequential Approach to Scalable Continual Model Merging"
    ),
    authors="Tang et al.",
    year=2025,
    venue="NeurIPS",
    arxiv="2501.09522",
)

OPCM = MethodRecord(
    name="opcm",
    target="fb_merging.continual.opcm:Opcm",
    summary="add task vectors one by one, without their part in the space that earlier ones use",
    tags=("task-vectors", "spectral", "continual", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(1, 20),
        surveys=1,
        ordered=True,
        laws=frozenset({Law.SINGLE, Law.BASE_FIXED_POINT, Law.TRANSLATION, Law.SCALE}),
    ),
    paper=_OPCM,
)

DOP = MethodRecord(
    name="dop",
    target="fb_merging.continual.dop:Dop",
    summary="merge models one by one, close to the old and to the new one in the spaces they use",
    tags=("task-vectors", "spectral", "continual", "data-free"),
    # Not SCALE: Adam steps by its learning rate, whatever the weights' size.
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(1, 28),
        ordered=True,
        laws=frozenset({Law.IDENTICAL, Law.SINGLE, Law.BASE_FIXED_POINT, Law.TRANSLATION}),
    ),
    paper=Paper(
        title=(
            "Continual Model Merging without Data: Dual Projections for Balancing Stability and Plasticity"
        ),
        authors="Yang et al.",
        year=2025,
        venue="NeurIPS",
    ),
)

CONTINUAL_TASK_ARITHMETIC = MethodRecord(
    name="continual_task_arithmetic",
    target="fb_merging.continual.continual_task_arithmetic:ContinualTaskArithmetic",
    summary="add the scaled task vector of each model that arrives",
    tags=("task-vectors", "continual", "data-free"),
    capabilities=Capabilities(base="required", locality="element", ordered=True, laws=TASK_VECTOR_LAWS),
    paper=_OPCM,
)

CONTINUAL_TIES_MERGING = MethodRecord(
    name="continual_ties_merging",
    target="fb_merging.continual.continual_ties_merging:ContinualTiesMerging",
    summary="merge the task vector of each model that arrives with the merged one, by TIES",
    tags=("task-vectors", "sparse", "continual", "data-free"),
    capabilities=Capabilities(
        base="required",
        locality="tensor",
        scratch=(2, 10),
        ordered=True,
        laws=TASK_VECTOR_LAWS - {Law.PERMUTATION},
    ),
    paper=_OPCM,
)

CONTINUAL_AVERAGE = MethodRecord(
    name="continual_average",
    target="fb_merging.continual.continual_average:ContinualAverage",
    summary="the running mean of the models that arrive",
    tags=("average", "continual", "data-free"),
    capabilities=Capabilities(base="optional", locality="element", ordered=True, laws=frozenset(Law)),
    paper=_OPCM,
)

ENTRIES = (
    OPCM,
    DOP,
    CONTINUAL_TASK_ARITHMETIC,
    CONTINUAL_TIES_MERGING,
    CONTINUAL_AVERAGE,
)
