"""Pruning of whole experts."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from fb_mixing.architectures import fits, plain_config
from fb_mixing.modules import count
from fb_mixing.pruning.calibration import CalibratedMethod, Inputs, narrow, tokens_seen, widen
from fb_mixing.pruning.records import EXPERT_SPARSITY
from fb_mixing.pruning.routed import RoutedExperts, routed_experts
from fb_mixing.pruning.skipping import skip_experts
from fb_mixing.sparse.mixtral import as_stored
from fusionbench_core import Checkpoint, ConfigError, Fused, FusionJob, implements

_MOST = 20_000
"""Sets of experts that are tried at most."""

Kept = tuple[int, ...]
"""Numbers of the experts that stay, in their order."""


@implements(EXPERT_SPARSITY)
class ExpertSparsity(CalibratedMethod):
    r"""Keep r experts of each sparse mixture: those that best reproduce what all of them give.

    For the mixture F of a layer and the tokens X that it sees on calibration data,

    $$C^* = \arg\min_{|C| = r} \lVert F(X; C) - F(X) \rVert_F$$

    where $F(X; C)$ routes among the experts C alone. All sets C are tried. With `progressive`, layers are
    pruned one after the other, and X comes out of the layers pruned so far, while F(X) stays the whole
    model's. With `skipping`, a token leaves out its second expert where its gate is small:

    $$g_2 < \beta\, g_1, \qquad \beta = \mathrm{median}\left(g_2 / g_1\right)
      \text{ of the layer, on calibration data}$$

    Notes:
        The paper keeps 4 or 6 of Mixtral's 8 experts, by 128 sequences of C4. It and FusionBench add up the
        norms of batches; here it is the norm over all tokens, whatever the batches. Padding does not count.
        For mixtures as transformers lays out Mixtral, OLMoE or Qwen3-MoE, whose routers look at nothing but
        their logits. Where the config can tell the number of experts, and nothing is skipped, the result is
        a plain checkpoint that transformers loads; otherwise a module with a registered builder.
        Memory: the model in fp32, and the outputs of all experts of a layer for a batch; with `progressive`
        a second copy of the experts that stay.

    Reference:
        Lu et al., Not All Experts are Equal: Efficient Expert Pruning and Skipping for Mixture-of-Experts
        Large Language Models, ACL 2024, arXiv:2402.14800.
    """

    num_experts: PositiveInt = Field(default=4, description="experts kept in each mixture")
    progressive: bool = Field(
        default=False, description="prune layer by layer, each on what the pruned ones before it give"
    )
    skipping: bool = Field(
        default=False, description="leave out a token's second expert where its gate is small"
    )

    @torch.no_grad()
    def fuse(self, job: FusionJob) -> Fused:
        (name,) = job.pool
        module = job.pool.module(name)
        mixtures = routed_experts(module, job.pool)
        self._check(mixtures)
        details: dict[str, Any] = {"base_parameters": count(module)}
        had = widen(module.to(job.fabric.device))
        batches = self.batches(job)
        choose = self._progressively if self.progressive else self._at_once
        kept, errors = choose(job, module, mixtures, batches)
        for mixture in mixtures:
            mixture.keep(kept[mixture.name])
        idle = sum(count(each.experts) // each.count * (each.count - each.top_k) for each in mixtures)
        details |= {
            "kept_experts": {key: list(each) for key, each in kept.items()},
            "relative_errors": errors,
            "parameters": count(module),
            "active_parameters": count(module) - idle,
        }
        if self.skipping:
            details["thresholds"] = skip_experts(mixtures, tokens_seen(module, mixtures, batches))
        module = narrow(module, had).cpu().requires_grad_(False).eval()
        return self._fused(job, module, mixtures, kept, details)

    def _check(self, mixtures: Sequence[RoutedExperts]) -> None:
        for each in mixtures:
            if not each.top_k <= self.num_experts <= each.count:
                raise ConfigError(
                    f"{self.num_experts} experts cannot be kept of the {each.count} of {each.name}",
                    why=f"each token sees {each.top_k} of them",
                    config="method.num_experts",
                    fix=f"set method.num_experts to {each.top_k} at least, and {each.count} at most",
                )
            if (tried := math.comb(each.count, self.num_experts)) > _MOST:
                raise ConfigError(
                    f"{tried:.2g} sets of {self.num_experts} of the {each.count} experts would be tried",
                    why=f"the method compares all of them, and {_MOST} take long enough",
                    config="method.num_experts",
                    fix=f"remove fewer: method.num_experts={each.count - 1}, and prune the result again",
                )
            if self.skipping and each.top_k != 2:
                raise ConfigError(
                    f"each token sees {each.top_k} experts of {each.name}, of which none can be skipped",
                    why="skipping compares the second expert's gate with the first one's",
                    config="method.skipping",
                    fix="set method.skipping=false",
                )

    def _at_once(
        self, job: FusionJob, module: nn.Module, mixtures: Sequence[RoutedExperts], batches: Sequence[Inputs]
    ) -> tuple[dict[str, Kept], dict[str, float]]:
        searches = {each.name: _Search(each, self.num_experts) for each in mixtures}
        for done, seen in enumerate(tokens_seen(module, mixtures, batches)):
            job.progress(done, len(batches), "calibration")
            for mixture in mixtures:
                tokens = seen[mixture.name]
                searches[mixture.name].look(tokens, _mixed(mixture, tokens))
        return _outcome(searches)

    def _progressively(
        self, job: FusionJob, module: nn.Module, mixtures: Sequence[RoutedExperts], batches: Sequence[Inputs]
    ) -> tuple[dict[str, Kept], dict[str, float]]:
        # Another module of the same tensors, whose mixtures are pruned one by one.
        shared: dict[int, Any] = {id(each): each for each in (*module.parameters(), *module.buffers())}
        pruned = copy.deepcopy(module, shared)
        searches = {}
        for done, whole in enumerate(mixtures):
            job.progress(done, len(mixtures), whole.name)
            twin = RoutedExperts(whole.name, pruned.get_submodule(whole.name))
            search = searches[whole.name] = _Search(twin, self.num_experts)
            both = zip(tokens_seen(module, [whole], batches), tokens_seen(pruned, [twin], batches))
            for before, after in both:
                search.look(after[whole.name], _mixed(whole, before[whole.name]))
            twin.keep(search.best)
        return _outcome(searches)

    def _fused(
        self,
        job: FusionJob,
        module: nn.Module,
        mixtures: Sequence[RoutedExperts],
        kept: dict[str, Kept],
        details: dict[str, Any],
    ) -> Fused:
        (name,) = job.pool
        config = plain_config(job.pool)
        _tell(config, self.num_experts)
        if self.skipping or config is None or not fits(module, config):
            arguments = {"experts": {key: len(each) for key, each in kept.items()}, "skipping": self.skipping}
            return Fused.of_module(
                module, builder="mixing/pruned_experts", arguments=arguments, details=details
            )
        _tell(getattr(module, "config", None), self.num_experts)
        rows = {key: kept[each.name] for each in mixtures for key in each.tensors}
        stored = _stored(job.pool.checkpoint(name), rows)
        return Fused.of_checkpoint(
            module,
            assets={"config.json": config.to_json_string()},
            tensors=as_stored(stored) if config.model_type == "mixtral" else stored,
            details=details,
        )


class _Search:
    """How well each set of experts of one mixture reproduces given outputs."""

    def __init__(self, mixture: RoutedExperts, size: int) -> None:
        self._mixture = mixture
        self._errors = dict.fromkeys(combinations(range(mixture.count), size), 0.0)
        self._total = 0.0

    def look(self, tokens: Tensor, wanted: Tensor) -> None:
        """Compare on these tokens `(n, in)` with the outputs `(n, in)` that are wanted."""
        each = torch.stack([self._mixture.output(number, tokens) for number in range(self._mixture.count)])
        for kept in self._errors:
            found = _weighted(each, *self._mixture.route(tokens, kept))
            self._errors[kept] += float((found - wanted).double().square().sum())
        self._total += float(wanted.double().square().sum())

    @property
    def best(self) -> Kept:
        """The best set; of equal ones the first."""
        return min(self._errors, key=self._errors.__getitem__)

    @property
    def error(self) -> float:
        """Error of the best set, over the norm of what was wanted."""
        return math.sqrt(self._errors[self.best] / self._total) if self._total else 0.0


def _outcome(searches: dict[str, _Search]) -> tuple[dict[str, Kept], dict[str, float]]:
    kept = {name: search.best for name, search in searches.items()}
    return kept, {name: search.error for name, search in searches.items()}


def _mixed(mixture: RoutedExperts, tokens: Tensor) -> Tensor:
    each = torch.stack([mixture.output(number, tokens) for number in range(mixture.count)])
    return _weighted(each, *mixture.route(tokens))


def _weighted(each: Tensor, gates: Tensor, chosen: Tensor) -> Tensor:
    """Outputs `(experts, n, in)`, those of the chosen ones `(n, top_k)` added up: `(n, in)`."""
    tokens = torch.arange(len(gates), device=gates.device)
    return sum(gate[:, None] * each[expert, tokens] for gate, expert in zip(gates.T, chosen.T))  # pyright: ignore[reportReturnType]


def _tell(config: Any, experts: int) -> None:
    """Have a config of transformers tell the new number of experts."""
    for key in ("num_local_experts", "num_experts"):
        if hasattr(config, key):
            setattr(config, key, experts)


def _stored(checkpoint: Checkpoint, rows: dict[str, Kept]) -> dict[str, Tensor]:
    """The tensors in the dtypes of the checkpoint, tied ones once, and of some of them these rows only."""
    return {
        key: checkpoint.tensor(key)[list(rows[key])] if key in rows else checkpoint.tensor(key)
        for key in checkpoint
        if key not in checkpoint.aliases
    }
