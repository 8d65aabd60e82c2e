"""Names become records, records become objects, and errors say what to do."""

from __future__ import annotations

import pickle

import pytest

from fusionbench_core.errors import NameConflict, PluginBroken, PluginIncompatible, UnknownName
from fusionbench_core.plugins import load_plugins
from fusionbench_core.registry import Registry, default_registry
from fusionbench_core.suggest import closest, did_you_mean


def test_short_and_full_names_find_the_same_record(fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    registry = fake_plugin.registry()
    assert registry.find("method", "one") is registry.find("method", "alpha/one")
    assert registry.load("method", "one").__name__ == "It"


def test_a_short_name_of_two_plugins_is_ambiguous_and_lists_the_full_names(fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    fake_plugin.methods("fb-beta", "one")
    registry = fake_plugin.registry()
    with pytest.raises(NameConflict, match="ambiguous") as caught:
        registry.find("method", "one")
    assert "alpha/one, beta/one" in str(caught.value)
    assert registry.find("method", "beta/one").origin.distribution == "fb-beta"
    assert registry.names("method") == ["alpha/one", "beta/one"]


def test_a_full_name_declared_twice_is_usable_by_nobody(fake_plugin):
    fake_plugin.methods("fb-alpha", "one", "one", "two")
    registry = fake_plugin.registry()
    for name in ("one", "alpha/one"):
        with pytest.raises(NameConflict, match="none is used"):
            registry.find("method", name)
    assert [record.name for record in registry.all("method")] == ["two"]
    assert list(registry.conflicts("method")) == ["alpha/one"]


def test_two_distributions_with_one_full_name_are_named_both(fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    fake_plugin.methods("impostor", "one", namespace="alpha")
    with pytest.raises(PluginBroken, match="conflict") as caught:
        fake_plugin.registry().find("method", "alpha/one")
    assert "fb-alpha 1.0; impostor 1.0" in str(caught.value)


@pytest.mark.parametrize("typo", ["ties_mergin", "TIES-Merging", "tiesmerging", "alpha/ties"])
def test_a_mistyped_name_gets_a_suggestion_and_the_listing(fake_plugin, typo):
    fake_plugin.methods("fb-alpha", "ties_merging")
    with pytest.raises(UnknownName, match=typo) as caught:
        fake_plugin.registry().find("method", typo)
    assert "ties_merging'?" in caught.value.fix
    assert "fb list methods" in caught.value.fix


def test_a_known_name_that_is_not_installed_becomes_an_install_line():
    with pytest.raises(UnknownName) as caught:
        Registry([]).find("method", "ties_merging")
    assert caught.value.fix == "pip install fb-merging"
    with pytest.raises(UnknownName) as caught:
        Registry([]).find("task", "clip_tasks/whatever")
    assert caught.value.fix == "pip install fb-clip-tasks"


@pytest.mark.parametrize(
    ("source", "requires", "error", "says"),
    [
        ("import missing_thing", "fusionbench-core", PluginBroken, "pip install fb-alpha"),
        ("1 / 0", "fusionbench-core", PluginBroken, "see where it fails: fb plugin info alpha"),
        ("", "fusionbench-core>=99", PluginIncompatible, "pip install 'fusionbench-core>=99'"),
    ],
)
def test_a_name_of_an_unusable_plugin_tells_cause_and_ways_out(fake_plugin, source, requires, error, says):
    fake_plugin.add("fb-alpha", source, requires=requires)
    registry = fake_plugin.registry()
    # Many a plugin is called like the one method it has.
    with pytest.raises(error):
        registry.find("method", "alpha")
    with pytest.raises(error) as caught:
        registry.find("method", "alpha/one")
    assert caught.value.exit_code == 3
    assert says in caught.value.fix
    assert "fb plugin disable alpha" in caught.value.fix
    assert len(caught.value.fix.splitlines()) == 3


def test_a_short_name_that_only_a_broken_plugin_declares_blames_it(fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    plugin = fake_plugin.root / "fb_alpha" / "plugin.py"
    plugin.write_text(plugin.read_text() + "\n@hookimpl\ndef fb_tasks():\n    raise ValueError('oh')\n")
    with pytest.raises(PluginBroken, match="alpha, which is broken"):
        fake_plugin.registry().find("method", "one")


def test_a_name_of_a_disabled_plugin_says_how_to_enable_it(fake_plugin, monkeypatch):
    fake_plugin.methods("fb-alpha", "one")
    monkeypatch.setenv("FB_PLUGINS", "")
    with pytest.raises(PluginBroken, match="disabled") as caught:
        Registry(load_plugins()).find("method", "alpha/one")
    assert "fb plugin enable alpha" in caught.value.fix


@pytest.mark.parametrize(
    ("implementation", "why"),
    [("import missing_thing", "missing_thing"), ("raise SystemExit(3)", "SystemExit: 3"), ("", "It")],
)
def test_a_target_that_cannot_be_imported_blames_plugin_and_target(fake_plugin, implementation, why):
    fake_plugin.methods("fb-alpha", "one", files={"impl.py": implementation})
    registry = fake_plugin.registry()
    with pytest.raises(PluginBroken) as caught:
        registry.resolve(registry.find("method", "one"))
    assert caught.value.where == {"plugin": "fb-alpha 1.0", "target": "fb_alpha.impl:It"}
    assert why in caught.value.why


def test_search_finds_all_words_in_name_summary_and_tags(fake_plugin):
    fake_plugin.methods("fb-alpha", "one", "two")
    registry = fake_plugin.registry()
    assert [(kind, record.name) for kind, record in registry.search("ABOUT two")] == [("method", "two")]
    assert [record.name for _, record in registry.search("t_one")] == ["one"]
    assert registry.search("nothing") == []


def test_an_unknown_kind_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="kinds are"):
        Registry([]).all("methods")


def test_the_default_registry_is_built_once(fake_plugin, monkeypatch):
    monkeypatch.setenv("FB_PLUGINS", "")
    assert default_registry() is default_registry()


def test_errors_travel_between_processes():
    with pytest.raises(UnknownName) as caught:
        Registry([]).find("method", "ties_merging")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_suggestions_are_close_or_absent():
    assert closest("slrep", ["slerp", "dare"]) == ["slerp"]
    assert did_you_mean("xyzzy", ["slerp", "dare"]) is None
    assert did_you_mean("dare", ["dare_ties", "dare_linear"]) == "did you mean 'dare_ties' or 'dare_linear'?"


def test_a_target_that_its_module_does_not_define_is_told_with_the_nearest(fake_plugin):
    source = """
        @hookimpl
        def fb_methods():
            yield records.MethodRecord(name="one", target="fb_alpha.impl:Trimed", summary="")
    """
    fake_plugin.add("fb-alpha", source, files={"impl.py": "class Trimmed: pass"})
    registry = fake_plugin.registry()
    with pytest.raises(PluginBroken) as caught:
        registry.resolve(registry.find("method", "one"))
    assert "mend the record's target: did you mean 'Trimmed'?" in str(caught.value)
