"""First-party plugins that may not be installed, so that an unknown name can become an install line.

Names only: the core imports none of them.
"""

from __future__ import annotations

NAMESPACES = {
    "merging": "fb-merging",
    "mixing": "fb-mixing",
    "ensemble": "fb-ensemble",
    "clip_tasks": "fb-clip-tasks",
    "nlp_tasks": "fb-nlp-tasks",
}
"""Namespace -> distribution."""

NAMES: dict[str, dict[str, str]] = {
    "merging": {
        "method": """
            simple_average weighted_average task_arithmetic ties_merging dare breadcrumbs della magmax
            slerp model_stock fisher_merging regmean emr_merging adamerging tsvm isotropic_merging
            wudi doge expo karcher sce
        """,
    },
    "mixing": {
        "method": """
            wemoe pwemoe smile_upscaling sparse_upcycling depth_upscaling model_recombination
            rankone_moe mixtral_upscaling
        """,
    },
    "ensemble": {"method": "simple_ensemble weighted_ensemble max_predictor"},
}
"""Namespace -> kind -> the names people look for."""


def distribution_of(kind: str, name: str) -> str | None:
    """The first-party distribution that provides a short or full name, if it is known.

    >>> distribution_of("method", "slerp")
    'fb-merging'
    """
    namespace, _, short = name.rpartition("/")
    if namespace:
        return NAMESPACES.get(namespace)
    for candidate, kinds in NAMES.items():
        if short in kinds.get(kind, "").split():
            return NAMESPACES[candidate]
    return None
