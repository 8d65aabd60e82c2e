"""Records of the methods in this package; light, nothing heavy is imported."""

from __future__ import annotations

from fusionbench_core.records import BuilderRecord, Capabilities, MethodRecord, Paper

EXPERT_SPARSITY = MethodRecord(
    name="expert_sparsity",
    target="fb_mixing.pruning.expert_sparsity:ExpertSparsity",
    summary="keep the experts of each sparse mixture that best reproduce its output on data",
    tags=("moe", "compression", "data"),
    capabilities=Capabilities(
        base="optional",
        max_models=1,
        locality="model",
        tasks=("batches",),
        output="module",
    ),
    paper=Paper(
        title="Not All Experts are Equal: Efficient Expert Pruning and Skipping for Mixture-of-Experts "
        "Large Language Models",
        authors="Lu et al.",
        year=2024,
        venue="ACL",
        arxiv="2402.14800",
    ),
)

MOE_PRUNER = MethodRecord(
    name="moe_pruner",
    target="fb_mixing.pruning.moe_pruner:MoEPruner",
    summary="prune the weights of experts by their magnitude, inputs and router",
    tags=("moe", "compression", "sparse", "data"),
    capabilities=Capabilities(
        base="optional",
        max_models=1,
        locality="model",
        tasks=("batches",),
    ),
    paper=Paper(
        title="MoE-Pruner: Pruning Mixture-of-Experts Large Language Model using the Hints from Its Router",
        authors="Xie et al.",
        year=2024,
        arxiv="2410.12013",
    ),
)

PRUNED_EXPERTS = BuilderRecord(
    name="pruned_experts",
    target="fb_mixing.pruning.builder:build_pruned_experts",
    summary="a model whose sparse mixtures have fewer experts, or skip some of them",
)

ENTRIES = (EXPERT_SPARSITY, MOE_PRUNER)
BUILDERS = (PRUNED_EXPERTS,)
