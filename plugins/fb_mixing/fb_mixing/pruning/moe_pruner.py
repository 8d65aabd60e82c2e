"""Pruning of experts' weights by the hints of their router."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from fb_mixing.pruning.calibration import CalibratedMethod, tokens_seen, widen
from fb_mixing.pruning.records import MOE_PRUNER
from fb_mixing.pruning.routed import MATRICES, RoutedExperts, routed_experts
from fusionbench_core import Fused, FusionJob, implements


@implements(MOE_PRUNER)
class MoEPruner(CalibratedMethod):
    r"""Set the experts' least important weights to zero: small, with small inputs, and small gates.

    In each row i of a matrix W of expert t, the entries with the highest scores stay:

    $$S_{ij} = |W_{ij}| \cdot \lVert X_j \odot g \rVert_2$$

    where $X_j$ is the j-th input of W for all tokens that are routed to the expert, and g are the gates that
    they give it. With `n` and `m`, n of each m consecutive entries of a row stay. Layers are pruned one after
    the other, and X comes out of those pruned so far. Nothing is trained, and nothing else is changed.

    Notes:
        `density` is 1 minus the paper's sparsity of 0.5, which 128 sequences of C4 decide on. Its
        distillation after pruning is not part of the method. An expert that no token is routed to keeps its
        largest weights. Padding does not count. Of equal scores the first ones stay.
        For mixtures as transformers lays out Mixtral, OLMoE or Qwen3-MoE.
        Memory: the model in fp32, and what the experts of a layer see of a batch.

    Reference:
        Xie et al., MoE-Pruner: Pruning Mixture-of-Experts Large Language Model using the Hints from Its
        Router, 2024, arXiv:2410.12013.
    """

    density: float = Field(default=0.5, gt=0, le=1, description="fraction of the entries of a row kept")
    n: PositiveInt | None = Field(default=None, description="n:m sparsity: entries kept in each block of m")
    m: PositiveInt | None = Field(default=None, description="n:m sparsity: entries of a block along a row")

    @model_validator(mode="after")
    def _blocks_are_whole(self) -> MoEPruner:
        if (self.n is None) != (self.m is None):
            raise ValueError("n:m sparsity takes both n and m")
        if self.n is not None and self.m is not None:
            if self.n > self.m:
                raise ValueError(f"n ({self.n}) of m ({self.m}) entries cannot be kept")
            if self.density != type(self).model_fields["density"].default:
                raise ValueError("n:m sparsity says how much is kept: leave out density")
        return self

    @torch.no_grad()
    def fuse(self, job: FusionJob) -> Fused:
        (name,) = job.pool
        module = job.pool.module(name)
        mixtures = routed_experts(module, job.pool)
        widen(module.to(job.fabric.device))
        batches = self.batches(job)
        for done, mixture in enumerate(mixtures):
            job.progress(done, len(mixtures), mixture.name)
            seen = (tokens[mixture.name] for tokens in tokens_seen(module, [mixture], batches))
            for key, norms in _input_norms(mixture, seen).items():
                self._prune(mixture.experts.get_parameter(key), norms)
        checkpoint = job.pool.checkpoint(name)
        state = {
            key: checkpoint.tensor(key)
            for key in checkpoint
            if key not in checkpoint.aliases and job.pool.merges(key)
        }
        pruned = [key for mixture in mixtures for key in mixture.tensors[1:]]
        state |= {key: module.get_parameter(key).cpu() for key in pruned}
        zeros = sum(int((state[key] == 0).sum()) for key in pruned)
        return Fused.weights(state, details={"pruned_tensors": pruned, "zeros": zeros})

    def _prune(self, matrices: Tensor, norms: Tensor) -> None:
        """Set entries to zero, in place, expert by expert.

        Args:
            matrices: `(experts, out, in)`.
            norms: `(experts, in)`, norms of the inputs.
        """
        columns = matrices.shape[-1]
        m = self.m or columns
        n = self.n or max(1, round(self.density * columns))
        for matrix, norm in zip(matrices, norms):
            score = matrix.abs() * (norm if norm.any() else torch.ones_like(norm)).to(matrix)
            matrix.masked_fill_(~highest(score, n, m), 0)


def highest(score: Tensor, n: int, m: int) -> Tensor:
    """Mask of the `n` highest of each `m` consecutive entries of a row; a last block may be shorter.

    Args:
        score: `(rows, columns)`.
    """
    rows, columns = score.shape
    blocks = F.pad(score, (0, -columns % m), value=-torch.inf).view(rows, -1, m)
    order = blocks.argsort(dim=-1, descending=True, stable=True)[..., :n]
    kept = torch.zeros_like(blocks, dtype=torch.bool).scatter_(-1, order, True)
    return kept.view(rows, -1)[:, :columns]


def _input_norms(mixture: RoutedExperts, seen: Iterable[Tensor]) -> dict[str, Tensor]:
    """Name of a stacked matrix -> `(experts, in)`, norms over the tokens of its inputs times the gates."""
    squares = {
        key: matrix.new_zeros(len(matrix), matrix.shape[-1], dtype=torch.float64)
        for key in MATRICES
        for matrix in [mixture.experts.get_parameter(key)]
    }
    for tokens in seen:
        gates, chosen = mixture.route(tokens)
        for expert in range(mixture.count):
            own, place = (chosen == expert).nonzero(as_tuple=True)
            weight = gates[own, place, None].double()
            inputs = tokens[own], mixture.hidden(expert, tokens[own])
            for key, each in zip(MATRICES, inputs):
                squares[key][expert] += (each.double() * weight).square().sum(0)
    return {key: each.sqrt() for key, each in squares.items()}
