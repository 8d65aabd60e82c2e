"""Configs with the settings of those that mergekit publishes give what mergekit itself gave.

`recorded.json` was written by mergekit 0.1.5: `python benchmarks/mergekit_configs.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_llms
import torch

from fusionbench_core.config.convert import convert
from fusionbench_core.config.schema import RunConfig
from fusionbench_core.engine.memory import merge_in_memory
from fusionbench_core.engine.plan import make_plan
from fusionbench_core.registry import default_registry
from fusionbench_core.run import prepare
from fusionbench_core.run.console import Console
from fusionbench_core.run.stages import run_stages

HERE = Path(__file__).parent
FILES = sorted((HERE / "configs").glob("*.yml"))
RECORDED = json.loads((HERE / "recorded.json").read_text(encoding="utf-8"))
ROUNDING = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 2**-7}


def converted(name: str) -> dict:
    return dict(convert(HERE / f"configs/{name}.yml", default_registry(), "mergekit").values)


def fused(values: dict, directory: Path) -> dict[str, torch.Tensor]:
    if "stages" in values:
        from fusionbench_core import open_checkpoint

        run_stages(values, default_registry(), directory, Console())
        checkpoint = open_checkpoint(directory / "model")
        return {name: checkpoint.tensor(name) for name in checkpoint if name not in checkpoint.aliases}
    prepared = prepare(RunConfig.model_validate(values), default_registry())
    state = merge_in_memory(prepared.method, prepared.pool, options=prepared.options)
    aliases = make_plan(prepared.method, prepared.pool, prepared.options).aliases
    return {name: tensor for name, tensor in state.items() if name not in aliases}


@pytest.mark.parametrize("name", RECORDED)
def test_the_result_is_that_of_mergekit(name, tmp_path):
    found, wanted = fused(converted(name), tmp_path / "out"), RECORDED[name]
    assert found.keys() == wanted["tensors"].keys()
    assert {str(tensor.dtype) for tensor in found.values()} == {f"torch.{wanted['dtype']}"}
    for key, tensor in found.items():
        largest = max(float(tensor.double().abs().max()), 1.0)
        bound = ROUNDING[wanted["dtype"]] * largest
        *some, total = (abs(a - b) for a, b in zip(tiny_llms.probe(tensor), wanted["tensors"][key]))
        assert max(some) <= bound, key
        assert total <= bound * tensor.numel() ** 0.5 + 1e-5, key


@pytest.mark.parametrize("name", sorted({file.stem for file in FILES} - RECORDED.keys()))
def test_random_methods_keep_the_expected_share_of_each_task_vector(name):
    from fusionbench_core import open_checkpoint

    found, base = fused(converted(name), Path()), open_checkpoint("base")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found.values())
    changed = sum(int((found[key].float() - base.tensor(key).float()).abs().gt(0.02).sum()) for key in base)
    total = sum(base.info(key).numel for key in base)
    # Two models of densities from 0.5 to 0.9 leave alone what both drop: at most a quarter, by expectation.
    assert 0.6 < changed / total < 1


def test_every_config_is_recorded_or_random():
    random = {"dare_ties", "della_linear"}
    assert {file.stem for file in FILES} == RECORDED.keys() | random
