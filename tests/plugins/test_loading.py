"""Each plugin is loaded in its own guard."""

from __future__ import annotations

import os
import sys
import time

import pytest

GOOD = """
@hookimpl
def fb_methods():
    yield records.MethodRecord(name="good", target="fb_good.impl:It", summary="works")
"""


def test_records_carry_their_origin(fake_plugin):
    fake_plugin.add("fb-good", GOOD, version="2.5")
    plugin = fake_plugin.load().get("good")
    (record,) = plugin.records["method"]
    assert record.full_name == "good/good"
    assert (record.origin.distribution, record.origin.version) == ("fb-good", "2.5")
    assert record.origin.module == "fb_good.plugin"
    assert plugin.counts == {"method": 1}
    assert plugin.load_ms > 0


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("raise SystemExit('please leave')", "SystemExit: please leave"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("@hookimpl\ndef fb_metods():\n    return []", "did you mean 'fb_methods'"),
        ("@hookimpl\ndef fb_run_started(runn):\n    pass", "runn"),
        (
            "@hookimpl\ndef fb_methods():\n    raise ValueError('inside')",
            "fb_methods raised ValueError: inside",
        ),
        ("@hookimpl\ndef fb_methods():\n    return ['ties']", "must yield MethodRecords, not 'ties'"),
        (
            "@hookimpl\ndef fb_methods():\n    return 3",
            "fb_methods must give MethodRecords, in a tuple or by `yield`",
        ),
        ("@hookimpl\ndef fb_methods():\n    ()", "fb_methods gives None: a `yield` or `return` is missing"),
        (
            "C = records.Capabilities(locality='rows')",
            "locality='rows' is none of 'element', 'row', 'tensor', 'layer', 'model'",
        ),
        (
            "C = records.Capabilities(tasks=('batches'))",
            "tasks='batches' is a string, not a tuple; write tasks=('batches',)",
        ),
        (
            "R = records.MethodRecord(name='one', target='a:B', summary='', tags=('robust'))",
            "tags='robust' is a string, not a tuple; write tags=('robust',)",
        ),
        (
            "@hookimpl\ndef fb_methods():\n    yield records.Record(name='Bad', target='a:B', summary='')",
            "lower-case",
        ),
        ("def fb_methods():\n    return []", "not marked with @hookimpl"),
        ("@hookimpl(wrapper=True)\ndef fb_methods():\n    return (yield)", "hook wrapper"),
    ],
)
def test_a_faulty_plugin_is_broken_and_leaves_others_alone(fake_plugin, source, cause):
    fake_plugin.add("fb-bad", source)
    fake_plugin.add("fb-good", GOOD)
    plugins = fake_plugin.load()
    assert plugins.get("bad").status == "broken"
    assert cause in plugins.get("bad").cause
    assert plugins.get("good").status == "ok"


def test_a_broken_plugin_keeps_its_traceback(fake_plugin):
    fake_plugin.add("fb-bad", "def f():\n    raise ValueError('deep')\n\nf()")
    assert "in f\n" in fake_plugin.load().get("bad").traceback


def test_other_hooks_of_a_raising_plugin_are_still_read_for_messages(fake_plugin):
    fake_plugin.add("fb-good", GOOD + "\n@hookimpl\ndef fb_tasks():\n    raise ValueError\n")
    plugin = fake_plugin.load().get("good")
    assert plugin.status == "broken"
    assert [record.name for record in plugin.records["method"]] == ["good"]


def test_what_a_plugin_prints_is_captured(fake_plugin, capfd):
    fake_plugin.add("fb-loud", "import sys\nprint('welcome')\nsys.stderr.write('warned')")
    assert fake_plugin.load().get("loud").printed == "welcome\nwarned"
    assert capfd.readouterr() == ("", "")


def test_tracing_prints_each_hook_call(fake_plugin, monkeypatch, capfd):
    fake_plugin.add("fb-good", GOOD)
    monkeypatch.setenv("FB_TRACE", "1")
    fake_plugin.load()
    assert "good:fb_methods" in capfd.readouterr().err


def test_a_slow_plugin_is_timed_and_harmless(fake_plugin):
    fake_plugin.add("fb-slow", "import time\ntime.sleep(0.05)")
    fake_plugin.add("fb-good", GOOD)
    plugins = fake_plugin.load()
    assert plugins.get("slow").load_ms >= 50
    assert plugins.get("good").status == "ok"


def test_an_incompatible_plugin_is_never_imported(fake_plugin):
    fake_plugin.add("fb-old", "raise SystemExit", requires="fusionbench-core<1")
    plugin = fake_plugin.load().get("old")
    assert plugin.status == "incompatible"
    assert not plugin.traceback


SLOW = """
    import time
    from pathlib import Path

    LOG = Path({log!r})

    time.sleep(0.1)
    LOG.write_text(LOG.read_text() + "x")

    @hookimpl
    def fb_methods():
        yield records.MethodRecord(
            name="late",
            target="fb_slow.impl:It",
            summary="takes its time",
            capabilities=records.Capabilities(base="required", laws=frozenset({{records.Law.SCALE}})),
            paper=records.Paper(title="A paper", authors="Someone", year=2020),
        )

    @hookimpl
    def fb_run_started(run):
        LOG.write_text(LOG.read_text() + "o")
"""


@pytest.fixture
def slow_plugin(fake_plugin, tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_text("")
    fake_plugin.add("fb-slow", SLOW.format(log=str(log)))
    old = time.time() - 100
    for path in [fake_plugin.root, *fake_plugin.root.rglob("*")]:
        os.utime(path, (old, old))
    monkeypatch.setattr("fusionbench_core.plugins.discovery_cache._SETTLED_SECONDS", -1e9)
    return fake_plugin, log


def again(site):
    for name in [name for name in sys.modules if name.startswith("fb_slow")]:
        del sys.modules[name]
    return site.load().get("slow")


def test_a_slow_plugin_is_imported_once_and_declares_the_same_ever_after(slow_plugin):
    site, log = slow_plugin
    first, second = again(site), again(site)
    assert log.read_text() == "x"
    assert second.records == first.records
    assert second.records["method"][0].origin == first.records["method"][0].origin
    assert (second.status, second.load_ms) == ("ok", first.load_ms)
    second.hooks["fb_run_started"](run=None)
    assert log.read_text() == "xxo"


def test_a_slow_plugin_is_imported_again_once_its_file_changes(slow_plugin):
    site, log = slow_plugin
    again(site)
    file = site.root / "fb_slow/plugin.py"
    file.write_text(file.read_text().replace('name="late"', 'name="later"'))
    assert again(site).records["method"][0].name == "later"
    assert log.read_text() == "xx"


def test_listings_that_judge_import_a_slow_plugin_again(slow_plugin):
    site, log = slow_plugin
    again(site)
    del sys.modules["fb_slow.plugin"]
    assert site.load(cached=False).get("slow").load_ms > 50
    assert log.read_text() == "xx"


def test_a_slow_plugin_that_is_broken_is_remembered_with_its_cause(slow_plugin):
    site, log = slow_plugin
    file = site.root / "fb_slow/plugin.py"
    file.write_text(file.read_text() + "\nraise ImportError('no luck')\n")
    first = again(site)
    assert (first.status, first.cause) == ("broken", "ImportError: no luck")
    second = again(site)
    assert (second.cause, second.traceback) == (first.cause, first.traceback)
    assert log.read_text() == "x"
