"""Users choose which plugins are loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fusionbench_core.errors import ConfigError, PluginBroken, UnknownName
from fusionbench_core.plugins import installed_plugins, load_plugins, settings


@pytest.fixture
def two(fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    fake_plugin.methods("fb-beta", "two")
    return fake_plugin


def statuses(plugins):
    return {name: plugins.get(name).status for name in ("alpha", "beta")}


def test_the_allow_list_loads_what_it_names(two, monkeypatch):
    monkeypatch.setenv("FB_PLUGINS", "alpha")
    assert statuses(load_plugins()) == {"alpha": "ok", "beta": "disabled"}


def test_the_allow_list_takes_distribution_names(two, monkeypatch):
    monkeypatch.setenv("FB_PLUGINS", " fb-alpha , fb-beta")
    assert statuses(load_plugins()) == {"alpha": "ok", "beta": "ok"}


def test_an_empty_allow_list_loads_nothing(two, monkeypatch):
    monkeypatch.setenv("FB_PLUGINS", "")
    assert not load_plugins().usable


def test_an_unknown_name_in_the_allow_list_is_an_error_with_a_suggestion(two, monkeypatch):
    monkeypatch.setenv("FB_PLUGINS", "alhpa")
    with pytest.raises(ConfigError, match="'alhpa'") as caught:
        load_plugins()
    assert caught.value.fix == "did you mean 'alpha'?"


def test_no_plugins_loads_nothing(two):
    assert not load_plugins(no_plugins=True).usable


def test_a_disabled_plugin_stays_off_until_it_is_enabled(two):
    settings.switch("beta", on=False)
    assert load_plugins().get("beta").status == "disabled"
    settings.switch("beta", on=True)
    assert load_plugins().get("beta").status == "ok"


def test_the_settings_file_is_plain_json(two):
    settings.switch("beta", on=False)
    assert json.loads(Path(settings.settings_file()).read_text()) == {"disabled": ["beta"]}


def test_malformed_settings_name_the_file(two):
    settings.switch("beta", on=False)
    Path(settings.settings_file()).write_text("[1]")
    with pytest.raises(ConfigError) as caught:
        load_plugins()
    assert caught.value.where["file"] == settings.settings_file()


def test_installed_plugins_are_loaded_once(two):
    assert installed_plugins() is installed_plugins()


SINGLE = """
from fusionbench_core.hookspecs import hookimpl
from fusionbench_core.records import MethodRecord, implements

RECORD = MethodRecord(name="mine", target="my_local_method:Mine", summary="mine")


@implements(RECORD)
class Mine:
    pass


@hookimpl
def fb_methods():
    yield RECORD
"""


@pytest.fixture
def local(tmp_path, monkeypatch):
    import sys

    file = tmp_path / "my_local_method.py"
    yield file
    sys.modules.pop("my_local_method", None)


def test_a_local_file_is_a_plugin(local):
    from fusionbench_core.registry import Registry

    local.write_text(SINGLE)
    registry = Registry(load_plugins(no_plugins=True, files=[local]))
    record = registry.find("method", "my_local_method/mine")
    assert registry.resolve(record).__name__ == "Mine"
    assert record.origin.distribution == str(local)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import nothing_like_this", "ModuleNotFoundError"),
        ("x = 1", "implements no hook"),
        ("def", "SyntaxError"),
    ],
)
def test_a_faulty_local_file_is_an_error_that_names_it(local, source, why):
    local.write_text(source)
    with pytest.raises(PluginBroken, match="my_local_method") as caught:
        load_plugins(no_plugins=True, files=[local])
    assert why in caught.value.why


@pytest.mark.parametrize("name", ["missing.py", "Not-A-Name.py", "json.py", "text.txt"])
def test_a_local_file_needs_a_fitting_name(tmp_path, name):
    if name != "missing.py":
        (tmp_path / name).write_text(SINGLE)
    with pytest.raises(ConfigError):
        load_plugins(no_plugins=True, files=[tmp_path / name])


def test_a_local_file_cannot_take_an_installed_namespace(two, tmp_path):
    (tmp_path / "alpha.py").write_text(SINGLE)
    with pytest.raises(ConfigError) as caught:
        load_plugins(files=[tmp_path / "alpha.py"])
    assert "fb-alpha" in caught.value.why


def test_known_raises_for_a_name_that_is_not_installed():
    with pytest.raises(UnknownName):
        settings.known("nothing", [])
