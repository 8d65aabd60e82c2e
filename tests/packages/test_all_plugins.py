"""The core with all its plugins: a first run works; plugins that do not work harm nobody else."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.install, pytest.mark.xdist_group("packages")]

UNRELATED = [
    ("--help",),
    ("list",),
    ("list", "methods", "--json"),
    ("list", "sources", "--json"),
    ("list", "tasks", "--json"),
    ("list", "configs", "--json"),
    ("show", "merging/ties_merging"),
    ("show", "no_such_method"),
]

HEAVY = ("torch", "transformers", "lightning", "datasets", "peft", "open_clip", "numpy", "pydantic", "hydra")

IMPORT_LIGHT = """
    import importlib, json, sys
    importlib.import_module(sys.argv[1])
    print(json.dumps([name for name in sys.argv[2:] if name in sys.modules]))
"""


def test_all_plugins_are_ok(everything, plugin):
    rows = {row["distribution"]: row["status"] for row in everything.json("plugin", "list")}
    assert rows[plugin] == "ok"


def test_the_doctor_finds_nothing_to_mend(everything):
    assert everything.json("doctor")["ok"]


def test_a_first_run_from_an_empty_directory_fuses_and_evaluates(everything, tmp_path):
    done = everything.run("run", "method=simple_average", "taskpool.limit=8", cwd=tmp_path)
    (report,) = tmp_path.glob("runs/*/report.json")
    written = json.loads(report.read_text())
    assert written["fusionbench"]["status"] == "complete"
    assert 0 < written["average"]["accuracy"] <= 1
    assert list(report.parent.glob("model/*.safetensors"))
    assert "Traceback" not in done.stderr


def test_a_plugin_module_imports_nothing_heavy(everything, plugin):
    module = f"{plugin.replace('-', '_')}.plugin"
    assert json.loads(everything.run_code(IMPORT_LIGHT, module, *HEAVY).stdout) == []


def test_broken_plugins_are_told_apart(crowded):
    rows = {row["distribution"]: row for row in crowded.json("plugin", "list")}
    assert (rows["fb-crash"]["status"], rows["fb-future"]["status"]) == ("broken", "incompatible")
    assert "told to fail" in rows["fb-crash"]["cause"]
    assert ">=99" in rows["fb-future"]["cause"]


def test_broken_plugins_change_only_their_own_lines_of_the_plugin_list(everything, crowded):
    def lines(environment):
        rows = environment.json("plugin", "list")
        return {row["distribution"]: {**row, "load_ms": None} for row in rows}

    before, after = lines(everything), lines(crowded)
    assert set(after) - set(before) == {"fb-crash", "fb-future"}
    assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("words", UNRELATED, ids=" ".join)
def test_broken_plugins_change_no_other_output(everything, crowded, words):
    before, after = everything.run(*words, ok=False), crowded.run(*words, ok=False)
    assert after.returncode == before.returncode
    # What is shown of a method names the file that its class is in.
    assert after.stdout.replace(str(crowded.root), str(everything.root)) == before.stdout


def test_the_version_names_them_beside_all_others(everything, crowded):
    before, after = (one.run("--version").stdout.splitlines() for one in (everything, crowded))
    assert [line for line in after if "fb-crash" not in line and "fb-future" not in line] == before


def test_broken_plugins_do_not_stop_a_merge(crowded):
    code = """
        import torch
        from fusionbench_core import fuse
        print(fuse("simple_average", [{"w": torch.zeros(2)}, {"w": torch.ones(2)}])["w"].tolist())
    """
    assert crowded.run_code(code).stdout.strip() == "[0.5, 0.5]"


def test_the_doctor_tells_of_broken_plugins(crowded):
    done = crowded.run("doctor", "--json", ok=False)
    assert done.returncode == 1
    assert "fb-crash" in done.stdout
