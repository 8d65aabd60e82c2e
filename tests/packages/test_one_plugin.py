"""Each plugin alone beside the core: it is found, and everything it declares is there and works."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.install, pytest.mark.xdist_group("packages")]

RESOLVE = """
    import json, warnings
    from fusionbench_core.config.presets import package_directory
    from fusionbench_core.registry import KINDS, default_registry

    registry = default_registry()
    resolved = {kind: [] for kind in KINDS}
    for kind in KINDS:
        for record in registry.all(kind):
            if kind == "config":
                assert package_directory(record.package).is_dir(), record.package
                resolved[kind].append(record.package)
            else:
                found = registry.resolve(record)
                assert callable(found), record
                resolved[kind].append(record.full_name)
    print(json.dumps(resolved))
"""


@pytest.fixture
def alone(environments, plugin):
    return environments("fusionbench-core", plugin)


def test_it_is_listed_as_ok(alone, plugin, wheels):
    (row,) = alone.json("plugin", "list")
    assert (row["distribution"], row["status"], row["cause"]) == (plugin, "ok", "")
    assert row["version"] == wheels[plugin].metadata.version
    assert row["printed"] == ""
    assert row["counts"]


def test_all_that_it_declares_is_listed(alone):
    (row,) = alone.json("plugin", "list")
    listed = {
        kind: [one["name"] for one in alone.json("list", kind)] for kind in row["counts"] if kind != "config"
    }
    declared = {kind: sorted(names) for kind, names in row["names"].items() if kind != "config"}
    assert listed == declared


def test_all_that_it_declares_can_be_imported(alone):
    (row,) = alone.json("plugin", "list")
    resolved = json.loads(alone.run_code(RESOLVE).stdout)
    assert {kind: len(names) for kind, names in resolved.items() if names} == row["counts"]


def test_merging_fuses_state_dicts(environments):
    environment = environments("fusionbench-core", "fb-merging")
    code = """
        import torch
        from fusionbench_core import fuse

        base, a, b = ({"w": torch.full((3, 5), value)} for value in (1.0, 2.0, 4.0))
        mean = fuse("simple_average", models={"a": a, "b": b})
        sum_ = fuse("task_arithmetic", models={"a": a, "b": b}, base=base, scaling_factor=0.5)
        print(mean["w"].unique().tolist(), sum_["w"].unique().tolist())
    """
    assert environment.run_code(code).stdout.strip() == "[3.0] [3.0]"


def test_text_tasks_measure_the_embedded_model_offline(environments):
    environment = environments("fusionbench-core", "fb-nlp-tasks")
    measured = environment.json(
        *("evaluate", "pkg://fb_nlp_tasks/embedded/minilm"),
        *("--taskpool", "embedded_text", "--task", "spam", "--limit", "8"),
        cwd=environment.empty,
    )
    assert list(measured) == ["spam"]
    assert measured["spam"]["n"] == 8
    assert 0 <= measured["spam"]["accuracy"] <= 1
    assert list(environment.empty.iterdir()) == []


def test_image_tasks_measure_the_embedded_model_offline(environments):
    environment = environments("fusionbench-core", "fb-clip-tasks")
    presets = {row["name"] for row in environment.json("list", "configs")}
    pools = sorted(name.partition("/")[2] for name in presets if name.startswith("taskpool/embedded"))
    trunks = sorted(
        path.parent.name for path in environment.site.glob("fb_clip_tasks/embedded/*/config.json")
    )
    if not pools or not trunks:
        pytest.skip("fb_clip_tasks embeds no model with a task pool yet")
    task = next(iter(json.loads(environment.run_code(TASKS, pools[0]).stdout)))
    measured = environment.json(
        *("evaluate", f"pkg://fb_clip_tasks/embedded/{trunks[0]}"),
        *("--taskpool", pools[0], "--task", task, "--limit", "8"),
        cwd=environment.empty,
    )
    assert measured[task]["n"] == 8


TASKS = """
    import json, sys
    from fusionbench_core.config import load_preset
    from fusionbench_core.registry import default_registry
    print(json.dumps(list(load_preset("taskpool", sys.argv[1], default_registry())["tasks"])))
"""
