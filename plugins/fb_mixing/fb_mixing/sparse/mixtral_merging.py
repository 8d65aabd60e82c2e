"""Mixtures of several models' feed-forward modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from fb_mixing.modules import FEED_FORWARD, live_bytes_inside, matching
from fb_mixing.sparse.mixtral import as_mixtral, feed_forward_names, mixtral_config
from fb_mixing.sparse.mixtures import bytes_of_mixtures, input_width, mixtures_in
from fb_mixing.sparse.records import MIXTRAL_MERGING
from fb_mixing.sparse.routers import (
    hidden_of_prompts,
    hidden_of_task,
    random_rows,
    tokenizer_of,
    unit,
)
from fusionbench_core import (
    Capabilities,
    ConfigError,
    Fused,
    FusionJob,
    MissingCapability,
    ModelMethod,
    ModelPool,
    implements,
)


@implements(MIXTRAL_MERGING)
class MixtralMerging(ModelMethod):
    r"""Make the feed-forward modules of several models the experts of one sparse mixture.

    $$y = \sum_{t \in \mathrm{top}_k(R x)} g_t \, F_t(x), \qquad
      g = \mathrm{softmax}(R x)\ \text{over the chosen}$$

    with $F_t$ the module of model t. Everything else is the base's. The rows of the routers R are random, or
    the directions, of length 1, in which the texts lie that each expert is for:

    $$R_t \propto \frac1{|P_t|} \sum_{p \in P_t} h(p) - \frac1{|N_t|} \sum_{p \in N_t} h(p)$$

    where P are `prompts`, N `negative_prompts`, and h(p) is what the module sees in the base model: of the
    last token (`hidden`), of all tokens on average (`hidden_avg`), or the mean of the tokens' embeddings
    (`cheap_embed`, the same in all layers). `hidden_avg` without prompts looks at the validation data of
    each model's task, which works for images as well.

    Notes:
        mergekit-moe takes h(p) from the residual stream before each layer; here it is the input of the
        feed-forward module, which is what the router will see. FusionBench knows random routers only. Their
        default is Mixtral's standard deviation of 0.02; they are keyed by the names of the models.
        Llama and Mistral language models become a Mixtral: a plain checkpoint that transformers, and whatever
        reads Mixtral's files, loads. Models of other architectures, or with `modules` given, become a module
        with a registered builder.
        Memory: the mixture; in fp32 where it is no Mixtral. Hidden states take the base in fp32 as well.

    Reference:
        Jiang et al., Mixtral of Experts, arXiv:2401.04088, for the architecture.
    """

    top_k: PositiveInt = Field(default=2, description="experts that see a token")
    router_init: Literal["random", "hidden", "hidden_avg", "cheap_embed"] = Field(
        default="random", description="what the routers' first weights are"
    )
    prompts: Mapping[str, tuple[str, ...]] = Field(
        default={}, description="model -> texts that its expert is for"
    )
    negative_prompts: Mapping[str, tuple[str, ...]] = Field(
        default={}, description="model -> texts that its expert is not for"
    )
    samples: PositiveInt = Field(
        default=64, description="samples of each task that hidden_avg looks at where there are no prompts"
    )
    init_std: float = Field(default=0.02, ge=0, description="standard deviation of random routers")
    modules: tuple[str, ...] = Field(
        default=FEED_FORWARD, min_length=1, description="shell patterns of the modules to replace"
    )

    @classmethod
    def example(cls, models: Sequence[str]) -> dict[str, Any]:
        """Names of feed-forward modules in the kit's models."""
        return {"modules": ("layers.*", "*.mlp", "block")}

    @model_validator(mode="after")
    def _prompts_fit(self) -> MixtralMerging:
        if self.router_init == "random" and (self.prompts or self.negative_prompts):
            raise ValueError("prompts are given, and router_init=random does not look at them")
        if self.router_init in ("hidden", "cheap_embed") and not self.prompts:
            raise ValueError(f"router_init={self.router_init} needs prompts")
        return self

    @property
    def capabilities(self) -> Capabilities:
        """The record's; data of tasks are needed for hidden states without prompts."""
        record = self.record.capabilities
        if self.router_init == "random":
            return record
        return replace(record, random=False, tasks=() if self.prompts else ("batches",))

    def check(self, models: Sequence[str]) -> None:
        """At least `top_k` experts, and prompts for each of them.

        Raises:
            ConfigError: if there are fewer, or models without prompts.
        """
        if self.top_k > len(models):
            raise ConfigError(
                f"top_k={self.top_k} experts are to see each token, and the pool has {len(models)}",
                config="method.top_k",
                fix=f"set method.top_k to at most {len(models)}",
            )
        silent = [name for name in models if self.prompts and not self.prompts.get(name)]
        unknown = sorted({*self.prompts, *self.negative_prompts} - set(models))
        if silent or unknown:
            raise ConfigError(
                f"no prompts for {', '.join(silent)}" if silent else f"prompts for {', '.join(unknown)}",
                why=f"the pool has {', '.join(models)}",
                config="method.prompts",
                fix="give texts for every model of the pool, and for no other",
            )

    def memory(self, pool: ModelPool) -> int:
        """The mixture, in the dtype of its files if it is a Mixtral; and the base that hidden states take.

        What is no Mixtral is built into the base, beside the modules that are replaced.
        """
        config = mixtral_config(pool, len(pool), self.top_k) if self.modules == FEED_FORWARD else None
        size = bytes_of_mixtures(pool, self.modules, len(pool), plain=config is not None)
        if config is None:
            return size + live_bytes_inside(pool, self.modules)
        return size + (pool.live_bytes() if self.router_init != "random" else 0)

    def fuse(self, job: FusionJob) -> Fused:
        names = list(job.pool)
        config = mixtral_config(job.pool, len(names), self.top_k) if self.modules == FEED_FORWARD else None
        module = None if config is not None and self.router_init == "random" else job.pool.module()
        if config is not None:
            widths = feed_forward_names(config)
        else:
            found = matching(module, self.modules)  # pyright: ignore[reportArgumentType]
            widths = {key: input_width(each, key) for key, each in found.items()}
        rows = self._rows(job, module, widths)
        if config is not None:
            return as_mixtral(config, job.pool, rows, None, names)
        assert module is not None
        return mixtures_in(module, job.pool, rows, names, self.top_k)

    def _rows(self, job: FusionJob, module: nn.Module | None, widths: Mapping[str, int]) -> dict[str, Tensor]:
        if self.router_init == "random":
            return random_rows(job, widths, list(job.pool), self.init_std)
        assert module is not None
        directions = [self._directions(job, module, list(widths), model) for model in job.pool]
        return {name: torch.stack([unit(each[name]) for each in directions]) for name in widths}

    def _directions(
        self, job: FusionJob, module: nn.Module, names: Sequence[str], model: str
    ) -> Mapping[str, Tensor]:
        if not self.prompts:
            task = job.pool.task_of(model)
            if task not in job.tasks:
                raise MissingCapability(
                    f"there is no task for model {model!r}, whose data the router is made from",
                    why=f"the task pool has {', '.join(job.tasks) or 'no tasks'}",
                    fix="add the task to the task pool, map models to tasks with `modelpool.data`, or give "
                    "method.prompts",
                )
            return hidden_of_task(job, module, names, task, self.samples)
        directions = dict(self._hidden(job, module, names, self.prompts[model]))
        if negative := self.negative_prompts.get(model):
            against = self._hidden(job, module, names, negative)
            directions = {name: directions[name] - against[name] for name in names}
        return directions

    def _hidden(
        self, job: FusionJob, module: nn.Module, names: Sequence[str], prompts: Sequence[str]
    ) -> Mapping[str, Tensor]:
        tokenize = tokenizer_of(job.pool)
        if self.router_init != "cheap_embed":
            last = self.router_init == "hidden"
            return hidden_of_prompts(module, tokenize, names, prompts, last=last)
        embedding = module.get_input_embeddings()  # pyright: ignore[reportCallIssue]
        ids = torch.cat([tokenize(prompt)["input_ids"][0] for prompt in prompts])
        mean: Tensor = embedding(ids).float().mean(0)
        return dict.fromkeys(names, mean)
