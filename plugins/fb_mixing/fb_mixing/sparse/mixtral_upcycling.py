"""Sparse up-cycling."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, PositiveInt

from fb_mixing.modules import FEED_FORWARD, live_bytes_inside, matching
from fb_mixing.sparse.mixtral import as_mixtral, feed_forward_names, mixtral_config
from fb_mixing.sparse.mixtures import bytes_of_mixtures, input_width, mixtures_in
from fb_mixing.sparse.records import MIXTRAL_UPCYCLING
from fb_mixing.sparse.routers import random_rows
from fusionbench_core import ConfigError, Fused, FusionJob, ModelMethod, ModelPool, implements


@implements(MIXTRAL_UPCYCLING)
class MixtralUpcycling(ModelMethod):
    r"""Up-cycle a dense model: each feed-forward module becomes a sparse mixture of copies of itself.

    $$y = \sum_{t \in \mathrm{top}_k(R x)} g_t \, F_t(x), \qquad F_1 = \dots = F_N = F, \qquad
      g = \mathrm{softmax}(R x)\ \text{over the chosen}, \qquad R \sim \mathcal N(0, \sigma^2)$$

    The experts are equal and their gates add up to 1, so that the mixture computes what the dense model
    computes, until it is trained further.

    Notes:
        Routing, and 8 experts of which 2 see a token, are Mixtral's; FusionBench takes 4. The paper
        replaces every other feed-forward module of T5 and ViT by 32 experts, which choose their tokens in the
        encoder.
        Llama and Mistral language models become a Mixtral: a plain checkpoint that transformers, and whatever
        reads Mixtral's files, loads. Models of other architectures, or with `modules` given, become a module
        with a registered builder: any module may be replaced that works on each token by itself.
        Memory: the mixture; in fp32 where it is no Mixtral.

    Reference:
        Komatsuzaki et al., Sparse Upcycling: Training Mixture-of-Experts from Dense Checkpoints, ICLR 2023,
        arXiv:2212.05055.
    """

    num_experts: PositiveInt = Field(default=8, description="copies of each feed-forward module")
    top_k: PositiveInt = Field(default=2, description="experts that see a token")
    init_std: float = Field(default=0.02, ge=0, description="standard deviation of the routers' weights")
    modules: tuple[str, ...] = Field(
        default=FEED_FORWARD, min_length=1, description="shell patterns of the modules to replace"
    )

    @classmethod
    def example(cls, models: Sequence[str]) -> dict[str, object]:
        """Names of feed-forward modules in the kit's models."""
        return {"num_experts": 3, "modules": ("layers.*", "*.mlp", "block")}

    def check(self, models: Sequence[str]) -> None:
        """At least `top_k` experts.

        Raises:
            ConfigError: if there are fewer.
        """
        if self.top_k > self.num_experts:
            raise ConfigError(
                f"top_k={self.top_k} experts are to see each token, and num_experts={self.num_experts}",
                config="method.top_k",
                fix="raise method.num_experts, or lower method.top_k",
            )

    def memory(self, pool: ModelPool) -> int:
        """The mixture, in the dtype of its files if it is a Mixtral; else beside the modules it replaces."""
        plain = self._plain and mixtral_config(pool, self.num_experts, self.top_k) is not None
        replaced = 0 if plain else live_bytes_inside(pool, self.modules)
        return bytes_of_mixtures(pool, self.modules, self.num_experts, plain=plain) + replaced

    def fuse(self, job: FusionJob) -> Fused:
        (name,) = job.pool
        copies = [f"expert {number}" for number in range(self.num_experts)]
        config = mixtral_config(job.pool, self.num_experts, self.top_k) if self._plain else None
        if config is not None:
            rows = random_rows(job, feed_forward_names(config), copies, self.init_std)
            return as_mixtral(config, job.pool, rows, name, [name] * self.num_experts)
        module = job.pool.module(name)
        found = matching(module, self.modules)
        widths = {key: input_width(each, key) for key, each in found.items()}
        rows = random_rows(job, widths, copies, self.init_std)
        return mixtures_in(module, job.pool, rows, [None] * self.num_experts, self.top_k)

    @property
    def _plain(self) -> bool:
        return self.modules == FEED_FORWARD
