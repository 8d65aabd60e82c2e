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
            ace_merging actmerge adamerging adarank arcee_fusion bitdelta breadcrumbs breadcrumbs_ties cabs
            cart concrete_adamerging concrete_task_arithmetic consensus_ta consensus_ties continual_average
            continual_task_arithmetic continual_ties_merging core_space dare_linear dare_simple_average
            dare_ties dc_merge della della_linear doge_adamerging doge_ta dop emr_merging expo
            fisher_merging fw_merging gossip iso_c iso_cts karcher knots linear_interpolation lines
            localize_and_stitch lora_extract low_rank magmax magnitude_diff_pruning magnitude_pruning mats
            metagpt model_stock multislerp nearswap nuslerp opcm orthomerge packed_bitdelta passthrough
            pcb_merging post_defense_awm post_defense_sau ram ramplus random_pruning regmean
            regmean_plusplus safe_concrete_adamerging scaled sce simple_average
            singular_value_calibration slerp star subspace_boosting surgery symerge tall_mask task_arithmetic
            task_arithmetic_trust_region task_vector_merging ties_merging tsv_merging varied
            wanda_pruning weighted_average wudi_merging
        """,
        "statistic": "abs_gradient activations diag_fisher gradient_gram gram",
        "builder": "masked_tasks signed_tasks superposed_tasks surgery task_layers",
        "converter": "mergekit",
    },
    "mixing": {
        "method": """
            ada_svd dawe depth_upscaling efficient_weight_ensembling_moe expert_sparsity mixtral_merging
            mixtral_upcycling model_recombination moe_pruner pwe_moe rank_one_moe smile_upscaling
            weight_ensembling_moe
        """,
        "builder": "data_adaptive pruned_experts smile sparse_mixtures stacked weight_ensembling",
    },
    "ensemble": {
        "method": """
            confidence_routing greedy_soup max_model_predictor simple_ensemble stacking task_routing
            uniform_soup weighted_ensemble
        """,
        "builder": "predictor stacked_tasks task_router",
    },
    "clip_tasks": {
        "source": "clip clip_vision image_classifier open_clip",
        "task": "image_classification zero_shot_image_classification",
    },
    "nlp_tasks": {
        "source": "causal_lm peft seq2seq_lm text_classifier text_encoder",
        "task": "text_classification",
    },
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
