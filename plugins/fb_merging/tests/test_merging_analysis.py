from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from fb_merging.analysis.command import analyse
from fb_merging.analysis.pictures import as_report
from fb_merging.analysis.task_vectors import QUANTILES, TaskVectorSums, describe

from fusionbench_core import ModelPool, PooledModel, run_survey
from fusionbench_core.engine.options import EngineOptions

NAMES = ("a", "b", "c")


def make_pool(dtype=torch.float32, layers=2):
    generator = torch.Generator().manual_seed(2)
    shapes = {"embed": (7,), **{f"layers.{index}.w": (30, 20) for index in range(layers)}}
    base = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    models = {}
    for name in NAMES:
        change = {key: 0.1 * torch.randn(shape, generator=generator) + 0.02 for key, shape in shapes.items()}
        change["layers.0.w"][:, :5] = 0
        models[name] = {key: (base[key].float() + change[key]).to(dtype) for key in base}
    pooled = {name: PooledModel(name, content=state) for name, state in models.items()}
    pool = ModelPool(pooled, PooledModel("_base_", content=base))
    deltas = {
        key: np.stack(
            [(models[name][key].float() - base[key].float()).double().numpy().ravel() for name in NAMES]
        )
        for key in base
    }
    return pool, deltas


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_similarities_are_those_of_the_task_vectors_as_a_whole(dtype):
    pool, deltas = make_pool(dtype)
    whole = np.concatenate(list(deltas.values()), axis=1)
    found = describe(run_survey(TaskVectorSums(), pool))
    length = np.linalg.norm(whole, axis=1)
    assert found["models"] == list(NAMES)
    assert found["entries"] == whole.shape[1]
    assert np.allclose(list(found["norm"].values()), length, rtol=1e-12)
    assert np.allclose(found["cosine"], whole @ whole.T / np.outer(length, length), rtol=1e-12)
    assert np.allclose(found["correlation"], np.corrcoef(whole), rtol=1e-9)
    distance = np.linalg.norm(whole[:, None] - whole[None], axis=2)
    assert np.allclose(found["distance"], distance, rtol=1e-9, atol=1e-7)
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert np.isclose(found["kinship"]["distance"], np.mean([distance[pair] for pair in pairs]))
    assert np.isclose(found["kinship"]["correlation"], np.mean([np.corrcoef(whole)[pair] for pair in pairs]))


def test_conflicts_are_fractions_of_the_entries_that_models_share():
    pool, deltas = make_pool()
    found = describe(run_survey(TaskVectorSums(), pool))["sign_conflict"]

    def conflict(each):
        shared = (each != 0).sum(0) >= 2
        return ((each > 0).any(0) & (each < 0).any(0))[shared].mean()

    assert found["layers"] == {
        "0": pytest.approx(conflict(deltas["layers.0.w"])),
        "1": pytest.approx(conflict(deltas["layers.1.w"])),
        "outside": pytest.approx(conflict(deltas["embed"])),
    }
    whole = np.concatenate(list(deltas.values()), axis=1)
    assert found["all"] == pytest.approx(conflict(whole))
    both = (whole[0] != 0) & (whole[1] != 0)
    assert found["pairs"][0][1] == pytest.approx((whole[0] * whole[1] < 0)[both].mean())
    assert found["pairs"][1][1] == 0


def test_quantiles_of_magnitudes_are_right_to_one_in_128():
    pool, deltas = make_pool()
    found = describe(run_survey(TaskVectorSums(), pool))["magnitude"]
    for name, delta in zip(NAMES, np.concatenate(list(deltas.values()), axis=1)):
        ordered = np.sort(np.abs(delta))
        wanted = [ordered[max(1, int(np.ceil(q * len(ordered)))) - 1] for q in QUANTILES]
        assert all(low <= value <= low * (1 + 1 / 128) for low, value in zip(found[name], wanted))


def test_sizes_are_fractions_of_the_entries_in_each_tenth_of_a_decade():
    base = {"w": torch.zeros(8)}
    models = {
        "a": PooledModel("a", content={"w": torch.tensor([1.5e-3, -1.5e-3, 1.5e-3, 0.02, 0, 0, 0, 0])}),
        "b": PooledModel("b", content=base),
    }
    sizes = describe(run_survey(TaskVectorSums(), ModelPool(models, PooledModel("_base_", content=base))))[
        "sizes"
    ]
    # log10 of 1.5e-3 is -2.82, that of 0.02 is -1.70 and rounds down to one just below.
    assert sizes["log10"][0] == -2.85
    assert sizes["a"][0] == 3 / 8
    assert sum(sizes["a"]) == 4 / 8
    assert sizes["a"][-1] == 1 / 8
    assert set(sizes["b"]) == {0.0}


def test_the_result_does_not_depend_on_threads():
    pool, _ = make_pool()
    one, three = (
        describe(run_survey(TaskVectorSums(), pool, options=EngineOptions(threads=threads)))
        for threads in (1, 3)
    )
    assert one == three


def test_models_equal_to_the_base_have_no_direction():
    base = {"w": torch.ones(3)}
    same = ModelPool(
        {name: PooledModel(name, content=dict(base)) for name in NAMES}, PooledModel("_base_", content=base)
    )
    found = describe(run_survey(TaskVectorSums(), same))
    assert found["cosine"] == [[None] * 3] * 3
    assert found["kinship"] == {"cosine": None, "correlation": None, "distance": 0.0}
    assert found["sign_conflict"]["all"] is None
    assert json.loads(json.dumps(found)) == found
    as_report("same", found)


def test_the_command_prints_a_table_or_json_and_writes_pictures(tmp_path, monkeypatch):
    pool, _ = make_pool()
    monkeypatch.setattr("fusionbench_core.api.open_pool", lambda name: pool)
    monkeypatch.setattr("fusionbench_core.open_pool", lambda name: pool, raising=False)
    run = CliRunner().invoke
    shown = run(analyse, ["mine"], catch_exceptions=False)
    text = shown.stdout
    # The three tensors of a model, and what is compared.
    assert shown.stderr.splitlines()[0].split() == ["survey", "mine"]
    assert shown.stderr.splitlines()[-1].split() == ["3/3"]
    assert text.splitlines()[0].split() == ["cosine", "a", "b", "c", "norm"]
    assert "kinship" in text
    quiet = run(analyse, ["mine", "--json", "--output", str(tmp_path)], catch_exceptions=False)
    assert quiet.stderr == ""
    found = json.loads(quiet.stdout)
    assert found["models"] == list(NAMES)
    page = (tmp_path / "report.html").read_text()
    assert "Cosine similarity of the task vectors" in page
    assert page.count("<svg") >= 5
    assert "No task was evaluated" not in page
