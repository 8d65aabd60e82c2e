"""Composing: presets, registered methods, files and overrides become one plain config."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from fusionbench_core.config import compose
from fusionbench_core.errors import ConfigError, NameConflict, PluginBroken, UnknownName
from fusionbench_core.registry import Registry


@pytest.fixture
def mine(configs, registry):
    """Compose the user's config `mine` with these overrides."""

    def run(*overrides, name="mine"):
        return compose(overrides, config_path=configs, config_name=name, registry=registry)

    return run


def test_a_config_is_plain_data_and_tells_its_files(mine, configs):
    composed = mine()
    assert composed.values == {
        "method": {"name": "merging/task_arithmetic", "scaling_factor": 0.3},
        "modelpool": {"models": {"a": "one", "b": "two"}, "scope": "all"},
        "seed": 3,
    }
    assert type(composed.values["method"]) is dict
    assert composed.files == (configs / "mine.yaml", configs / "modelpool" / "two.yaml")


@pytest.mark.parametrize("name", ["ties_merging", "merging/ties_merging"])
@pytest.mark.parametrize("root", ["mine", "plain"])
def test_another_method_gets_none_of_the_first_ones_parameters(mine, name, root):
    assert mine(f"method={name}", name=root).values["method"] == {"name": "merging/ties_merging"}


@pytest.mark.parametrize("name", ["task_arithmetic", "merging/task_arithmetic"])
@pytest.mark.parametrize("root", ["mine", "plain"])
def test_naming_the_same_method_keeps_its_parameters(mine, name, root):
    method = mine(f"method={name}", name=root).values["method"]
    assert method == {"name": "merging/task_arithmetic", "scaling_factor": 0.3}


def test_values_of_the_command_line_reach_the_chosen_method(mine):
    method = mine("method=ties_merging", "method.density=0.5", "+method.trim=model").values["method"]
    assert method == {"name": "merging/ties_merging", "density": 0.5, "trim": "model"}


def test_a_value_may_refer_to_another_section(mine):
    values = mine("method=ties_merging", "method.density=${seed}", "name=run-${seed}").values
    assert values["method"]["density"] == 3
    assert values["name"] == "run-3"


def test_a_method_preset_is_a_choice_like_a_registered_method(mine):
    assert mine("method=tuned").values["method"] == {"name": "merging/ties_merging", "density": 0.1}


def test_another_pool_replaces_the_section(mine):
    assert mine("modelpool=three").values["modelpool"] == {"models": {"a": 1, "b": 2, "c": 3}}
    assert mine("modelpool=two").values["modelpool"]["scope"] == "all"


@pytest.mark.parametrize("word", ["taskpool=cars", "+taskpool=cars"])
def test_a_group_that_the_config_does_not_mention_can_be_chosen(mine, word):
    assert mine(word).values["taskpool"] == {"tasks": ["cars"]}


@pytest.mark.parametrize("word", ["taskpool=null", "~taskpool", "method=null", "~method"])
def test_a_section_can_be_left_out(mine, word):
    assert mine(word).values[word.strip("~").partition("=")[0]] is None


def test_shared_sections_are_merged(mine):
    values = mine("fabric=cpu", "fabric.devices=2", "report=json", "engine.threads=2").values
    assert values["fabric"] == {"accelerator": "cpu", "devices": 2}
    assert values["report"] == {"formats": ["json"]}
    assert values["engine"] == {"threads": 2}


def test_hydras_own_signs_pass_through(mine):
    values = mine("++seed=5", "+name=x", "~method.scaling_factor").values
    assert (values["seed"], values["name"]) == (5, "x")
    assert values["method"] == {"name": "merging/task_arithmetic"}


def test_a_file_is_a_choice_of_a_component(mine, tmp_path):
    file = tmp_path / "my pool.yaml"
    file.write_text("models: {z: here}\n")
    composed = mine(f"modelpool={file}", "modelpool.base=there")
    assert composed.values["modelpool"] == {"models": {"z": "here"}, "base": "there"}
    assert file in composed.files


@pytest.mark.parametrize("word", ["method=ties_mergin", "method=Ties-Merging"])
def test_a_mistyped_method_is_an_unknown_name_with_a_suggestion(mine, word):
    with pytest.raises(UnknownName) as caught:
        mine(word)
    assert "'ties_merging'" in caught.value.fix
    assert caught.value.exit_code == 2


def test_a_mistyped_method_in_a_file_names_the_file(configs, registry):
    (configs / "bad.yaml").write_text("defaults: [{method: slrep}]\n")
    with pytest.raises(UnknownName, match="slrep") as caught:
        compose([], configs, "bad", registry)
    assert caught.value.where["file"] == str(configs / "bad.yaml")
    (configs / "bad.yaml").write_text("method: {name: tis_merging}\n")
    with pytest.raises(UnknownName, match="tis_merging"):
        compose([], configs, "bad", registry)


def test_a_root_whose_method_is_missing_works_with_another_one(configs, registry):
    (configs / "other.yaml").write_text("defaults: [{method: slerp}, {modelpool: two}]\n")
    composed = compose(["method=ties_merging"], configs, "other", registry)
    assert composed.values["method"] == {"name": "merging/ties_merging"}


def test_an_ambiguous_method_is_reported_before_composing(configs, make_plugin):
    registry = Registry([make_plugin("alpha", "same"), make_plugin("beta", "same")])
    with pytest.raises(NameConflict, match="ambiguous"):
        compose(["method=same", "modelpool=two"], configs, "plain", registry)
    composed = compose(["method=beta/same"], configs, "plain", registry)
    assert composed.values["method"] == {"name": "beta/same"}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("modelpool=tow", "did you mean 'two'"),
        ("taskpool=carss", "did you mean 'cars'"),
        ("fabric=cpuu", "did you mean 'cpu'"),
        ("modelpool=./none.yaml", "no such file"),
        ("nonsense", "key=value"),
        ("seed=(1", "++seed=(1"),
        ("name=${nowhere}", "nowhere"),
        ("name=${oc.env:HOME}", "oc.env"),
        ("name=x${ oc.env:HOME}", "oc.env"),
        ("name=${oc.decode:1}", "oc.decode"),
        ("method._target_=os.system", "_target_"),
        ("modelpool.models.a={_target_:os.system}", "modelpool.models.a._target_"),
        ("seed=???", "seed"),
        ("~method.nothing", "method.nothing"),
    ],
)
def test_a_wrong_word_is_a_config_error_that_says_what_is_wrong(mine, word, says):
    with pytest.raises(ConfigError) as caught:
        mine(word)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: 1\nseed: 2\n", "duplicate key"),
        ("seed: [1\n", "bad.yaml:"),
        ("- 1\n- 2\n", "bad.yaml"),
        ("hydra: {run: {dir: .}}\n", "`hydra` section"),
        ("modelpool: {_target_: os.system}\n", "_target_"),
        ("modelpool: two\n", "modelpool=two"),
        ("defaults: [{modelpool: tow}]\n", "did you mean 'two'"),
        ("x: " + "y" * 1024 * 1024, "too large"),
    ],
)
def test_a_faulty_file_is_a_config_error_that_names_it(configs, registry, text, says):
    (configs / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        compose([], configs, "bad", registry)
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "- 1\n", "a: [\n"])
def test_a_faulty_component_file_is_a_config_error_that_names_it(mine, tmp_path, text):
    file = tmp_path / "pool.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        mine(f"modelpool={file}")
    assert str(file) in str(caught.value)


def test_an_unknown_config_name_lists_what_there_is(mine):
    with pytest.raises(ConfigError) as caught:
        mine(name="min")
    assert "mine" in caught.value.why
    assert "did you mean 'mine'?" in caught.value.fix


def test_a_missing_config_directory_is_an_error(registry, tmp_path):
    with pytest.raises(ConfigError, match="no config directory"):
        compose([], tmp_path / "nowhere", "mine", registry)


@pytest.mark.parametrize("name", ["mine.yaml", "mine"])
def test_a_config_name_may_end_in_yaml(mine, name):
    assert mine(name=name).values["seed"] == 3


def test_a_single_file_is_a_root(configs, registry):
    assert compose([], configs / "mine.yaml", None, registry).values["seed"] == 3


PRESETS = {
    "bench.yaml": "defaults:\n- method: task_arithmetic\n- modelpool: shipped\n- _self_\nseed: 7\n",
    "modelpool/shipped.yaml": "models: {a: hub}\n",
    "modelpool/two.yaml": "models: {hidden: by the user's}\n",
}


def test_a_bare_compose_uses_the_one_default_and_imports_no_package(with_presets):
    composed = compose([], registry=with_presets(PRESETS, default="bench"))
    assert composed.values["seed"] == 7
    assert composed.values["modelpool"] == {"models": {"a": "hub"}}


def test_groups_without_a_config_name_change_the_default_root(with_presets, tmp_path):
    registry = with_presets(PRESETS, default="bench")
    composed = compose(["method=ties_merging", "taskpool=null"], registry=registry)
    assert composed.values == {
        "method": {"name": "merging/ties_merging"},
        "modelpool": {"models": {"a": "hub"}},
        "seed": 7,
        "taskpool": None,
    }


TASKED = {
    **PRESETS,
    "bench.yaml": "defaults:\n- method: task_arithmetic\n- modelpool: shipped\n- taskpool: cars\n- _self_\n",
    "taskpool/cars.yaml": "task: images\ntasks: {a: {}, cars: {}}\n",
}


@pytest.mark.parametrize(
    ("pool", "words", "kept"),
    [
        ("models: {mine: here}", [], False),
        ("models: {cars: here}", [], True),
        ("models: {mine: here}\ndata: {mine: cars}", [], True),
        ("models: {mine: here}", ["taskpool=cars"], True),
        ("models: {mine: here}", ["taskpool.limit=3"], True),
    ],
)
def test_default_tasks_are_left_out_where_none_is_for_a_task_of_the_users_models(
    with_presets, tmp_path, pool, words, kept
):
    registry = with_presets(TASKED, default="bench")
    file = tmp_path / "pool.yaml"
    file.write_text(pool)
    values = compose([f"modelpool={file}", *words], registry=registry).values
    assert (values["taskpool"] is not None) == kept
    named = compose([f"modelpool={file}", *words], None, "bench", registry).values
    assert named["taskpool"] is not None


def test_the_users_directory_comes_before_the_presets(with_presets, configs):
    registry = with_presets(PRESETS, default="bench")
    assert compose(["modelpool=two"], configs, "mine", registry).values["modelpool"]["models"]["a"] == "one"
    assert compose(["modelpool=shipped"], configs, "mine", registry).values["modelpool"] == {
        "models": {"a": "hub"}
    }
    assert compose([], configs, "bench", registry).values["seed"] == 7


def test_without_any_default_the_error_says_what_to_do(registry):
    with pytest.raises(ConfigError, match="nothing says what to run") as caught:
        compose(["method=ties_merging"], registry=registry)
    assert "--config-path" in caught.value.fix


def test_method_and_pool_alone_make_a_config(registry, configs):
    words = ["method=ties_merging", f"modelpool={configs / 'modelpool/two.yaml'}", "seed=1"]
    assert compose(words, registry=registry).values == {
        "method": {"name": "merging/ties_merging"},
        "modelpool": {"models": {"a": "one", "b": "two"}},
        "seed": 1,
    }


def test_two_defaults_need_a_choice(with_presets):
    one = with_presets(PRESETS, default="bench", namespaces=("merging",))
    two = with_presets({"other.yaml": "seed: 1\n"}, default="other", namespaces=("beta",))
    with pytest.raises(ConfigError, match="several plugins") as caught:
        compose([], registry=Registry([*one.plugins, *two.plugins]))
    assert "bench (fb-merging)" in caught.value.why


def test_a_method_of_a_broken_plugin_is_reported_as_such(configs, make_plugin):
    from dataclasses import replace

    lame = replace(make_plugin("merging", "task_arithmetic"), status="broken", cause="no numpy")
    with pytest.raises(PluginBroken, match="broken"):
        compose([], configs, "mine", Registry([lame]))


def test_hydras_global_state_is_left_as_it_was(mine, registry):
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    mine("method=ties_merging")
    assert not GlobalHydra.instance().is_initialized()
    assert "method" not in ConfigStore.instance().repo
    with pytest.raises(ConfigError):
        mine("fabric=nothing")
    assert not GlobalHydra.instance().is_initialized()
    with pytest.raises(UnknownName):
        compose(["method=ties_merging"], registry=Registry([]))


def test_composing_is_silent_and_stays_in_its_directory(mine, capfd):
    before = os.getcwd(), len(os.listdir())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine("method=ties_merging", "fabric=cpu")
    assert (os.getcwd(), len(os.listdir())) == before
    assert capfd.readouterr() == ("", "")


def test_importing_the_config_package_imports_neither_hydra_nor_pydantic():
    code = (
        "import sys, fusionbench_core.config; "
        "print([m for m in ('torch', 'hydra', 'pydantic', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
