"""Records of everything in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import BuilderRecord, Capabilities, Law, MethodRecord, Paper

_LAWS = frozenset({Law.IDENTICAL, Law.SINGLE, Law.PERMUTATION, Law.BASE_FIXED_POINT})

_PREDICTOR = Capabilities(locality="model", output="predictor", laws=_LAWS)

_LABELLED = ("batches", "labels", "logits")
"""What methods that look at validation data ask of tasks."""

_SOUPS = Paper(
    title="Model soups: averaging weights of multiple fine-tuned models improves accuracy "
    "without increasing inference time",
    authors="Wortsman et al.",
    year=2022,
    venue="ICML",
    arxiv="2203.05482",
)

SIMPLE_ENSEMBLE = MethodRecord(
    name="simple_ensemble",
    target="fb_ensemble.simple_ensemble:SimpleEnsemble",
    summary="the mean of all models' outputs, or their majority vote",
    tags=("output-space", "data-free", "baseline"),
    capabilities=_PREDICTOR,
    paper=Paper(
        title="Neural network ensembles", authors="Hansen and Salamon", year=1990, venue="IEEE TPAMI"
    ),
)

WEIGHTED_ENSEMBLE = MethodRecord(
    name="weighted_ensemble",
    target="fb_ensemble.weighted_ensemble:WeightedEnsemble",
    summary="a weighted mean of all models' outputs, the weights given or fitted on validation data",
    tags=("output-space", "data-free"),
    capabilities=_PREDICTOR,
    paper=Paper(
        title="When networks disagree: ensemble methods for hybrid neural networks",
        authors="Perrone and Cooper",
        year=1993,
    ),
)

MAX_MODEL_PREDICTOR = MethodRecord(
    name="max_model_predictor",
    target="fb_ensemble.max_model_predictor:MaxModelPredictor",
    summary="the largest of all models' outputs, entry by entry",
    tags=("output-space", "data-free"),
    capabilities=_PREDICTOR,
)

STACKING = MethodRecord(
    name="stacking",
    target="fb_ensemble.stacking:Stacking",
    summary="a classifier for each task that learns from all models' predictions on validation data",
    tags=("output-space", "task-conditioned", "data", "learned"),
    capabilities=Capabilities(
        locality="model",
        tasks=_LABELLED,
        trains=True,
        output="conditioned",
        laws=frozenset({Law.PERMUTATION}),
    ),
    paper=Paper(
        title="Issues in Stacked Generalization",
        authors="Ting and Witten",
        year=1999,
        venue="JAIR",
        arxiv="1105.5466",
    ),
)

CONFIDENCE_ROUTING = MethodRecord(
    name="confidence_routing",
    target="fb_ensemble.confidence_routing:ConfidenceRouting",
    summary="for each input the outputs of the model that is surest of its prediction",
    tags=("output-space", "routing", "data-free"),
    capabilities=_PREDICTOR,
)

TASK_ROUTING = MethodRecord(
    name="task_routing",
    target="fb_ensemble.task_routing:TaskRouting",
    summary="for each task the model that was fine-tuned on it",
    tags=("routing", "task-conditioned", "data-free", "baseline"),
    capabilities=Capabilities(locality="model", output="conditioned", laws=_LAWS),
)

UNIFORM_SOUP = MethodRecord(
    name="uniform_soup",
    target="fb_ensemble.soups.uniform_soup:UniformSoup",
    summary="the mean of all models' weights, or of chosen ones",
    tags=("average", "soup", "data-free", "baseline"),
    capabilities=Capabilities(laws=_LAWS | {Law.TRANSLATION, Law.SCALE}),
    paper=_SOUPS,
)

GREEDY_SOUP = MethodRecord(
    name="greedy_soup",
    target="fb_ensemble.soups.greedy_soup:GreedySoup",
    summary="the mean of those models' weights that do not make it worse on validation data",
    tags=("average", "soup", "data"),
    capabilities=Capabilities(locality="model", tasks=_LABELLED, laws=_LAWS),
    paper=_SOUPS,
)

PREDICTOR = BuilderRecord(
    name="predictor",
    target="fb_ensemble.builder:build_predictor",
    summary="an ensemble of the models it refers to",
)

STACKED_TASKS = BuilderRecord(
    name="stacked_tasks",
    target="fb_ensemble.builder:build_stacked_tasks",
    summary="the models it refers to, and a classifier of their predictions for each task",
)

TASK_ROUTER = BuilderRecord(
    name="task_router",
    target="fb_ensemble.builder:build_task_router",
    summary="for each task one of the models it refers to",
)

ENTRIES: tuple[MethodRecord, ...] = (
    SIMPLE_ENSEMBLE,
    WEIGHTED_ENSEMBLE,
    MAX_MODEL_PREDICTOR,
    STACKING,
    CONFIDENCE_ROUTING,
    TASK_ROUTING,
    UNIFORM_SOUP,
    GREEDY_SOUP,
)

BUILDERS: tuple[BuilderRecord, ...] = (PREDICTOR, STACKED_TASKS, TASK_ROUTER)
