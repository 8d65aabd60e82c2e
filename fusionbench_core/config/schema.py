"""The typed shape of a run: what `fb run` and `fusionbench_core.run` take.

`method`, `modelpool` and `taskpool` stay plain here; the classes they name validate them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class Section(BaseModel):
    """A frozen part of a config that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FabricConfig(Section):
    """Where learned methods, statistics and evaluation compute: Lightning Fabric's own words."""

    accelerator: str = Field(default="auto", description="auto, cpu, cuda, mps or tpu")
    devices: PositiveInt | list[int] | Literal["auto"] = Field(
        default=1, description="how many devices, or their indices"
    )
    strategy: str = Field(default="auto", description="auto, ddp, fsdp or deepspeed")
    precision: str = Field(default="32-true", description="e.g. 32-true, bf16-mixed, 16-mixed")
    num_nodes: PositiveInt = Field(default=1, description="how many machines")


class EngineConfig(Section):
    """How tensors stream from disk to disk."""

    threads: PositiveInt | None = Field(
        default=None, description="worker threads; null for one a core. The output does not depend on it"
    )
    memory_budget: str | int | None = Field(
        default=None,
        description="most memory that tensors being merged may take, e.g. 2GB; null for 3/4 of what is free",
    )
    cache_size: str | int = Field(
        default="5GB",
        description="most disk for factorised matrices, kept so that a sweep over coefficients pays for them "
        "once; 0 keeps none",
    )
    dtype: str | None = Field(
        default=None,
        description="type of the output's floating-point tensors, e.g. bfloat16; null keeps the input's",
    )
    accumulate: Literal["float32", "float64"] = Field(
        default="float32", description="type that sums are computed in; double inputs always use float64"
    )
    max_shard_size: str = Field(default="5GB", description="largest file of the artefact")
    check_finite: bool = Field(default=True, description="refuse NaN and Inf in the inputs")
    integers: Literal["error", "base", "first", "max"] = Field(
        default="error",
        description="integer tensors that differ: refuse, or take the base's, the first model's, the largest",
    )
    device: str = Field(
        default="cpu",
        description="where methods that factorise matrices compute: cpu, cuda, cuda:1, or auto for a GPU if "
        "there is one. All others wait for the disk, and stay on the CPU. A GPU rounds differently",
    )


class ReportConfig(Section):
    """Which reports are written into the run directory."""

    formats: tuple[str, ...] = Field(
        default=("json", "md", "html"), description="json, md, html, and the names of registered reporters"
    )


class RunConfig(Section):
    """One run: fuse a model pool with a method, evaluate it on a task pool, report."""

    name: str | None = Field(
        default=None, description="a name for the report; by default made from the choices"
    )
    method: dict[str, Any] | None = Field(
        default=None, description="`name` and the method's parameters; null evaluates the pool as it is"
    )
    modelpool: dict[str, Any] = Field(description="the models, the base, and what to merge of them")
    taskpool: dict[str, Any] | None = Field(
        default=None, description="what to evaluate on; null evaluates nothing"
    )
    fabric: FabricConfig = Field(default=FabricConfig(), description="devices and precision")
    engine: EngineConfig = Field(default=EngineConfig(), description="threads, memory and types of the merge")
    report: ReportConfig = Field(default=ReportConfig(), description="report formats")
    tune: dict[str, list[Any]] | None = Field(
        default=None,
        description="method parameter -> values to try on the validation split; the best ones are used",
    )
    learned_from: str | None = Field(
        default=None, description="run directory of the same method: start from what it has learned"
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="everything random derives from it")
    output_dir: str | None = Field(
        default=None, description="the run directory; by default a new one under runs/"
    )
    merged_model_save_path: str | None = Field(
        default=None, description="where the model goes; by default `model` in the run directory"
    )
    report_save_path: str | None = Field(
        default=None, description="an extra copy of the JSON report, where FusionBench's scripts expect it"
    )
    check_baselines: bool = Field(
        default=False,
        description="also evaluate the base, each model alone and other baselines, for normalised scores",
    )
