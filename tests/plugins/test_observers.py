"""Observers watch a run and cannot break it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from fusionbench_core.plugins import Observers

WATCHER = """
seen = []

@hookimpl
def fb_run_started(run):
    seen.append(run)

@hookimpl
def fb_task_evaluated(result):
    seen.append(result)
"""
RAISER = """
@hookimpl
def fb_run_started(run):
    raise SystemExit("no")

@hookimpl
def fb_tensor_done(step):
    raise ValueError("always")
"""


def test_observers_are_called_with_the_arguments_they_take(fake_plugin):
    fake_plugin.add("fb-watch", WATCHER)
    observers = Observers(fake_plugin.load())
    observers.notify("fb_run_started", run="the run")
    observers.notify("fb_task_evaluated", run="the run", result="a result")
    import fb_watch.plugin

    assert fb_watch.plugin.seen == ["the run", "a result"]
    assert observers.warnings == []


def test_a_raising_observer_is_a_warning_and_the_next_one_is_called(fake_plugin):
    fake_plugin.add("fb-araise", RAISER)
    fake_plugin.add("fb-watch", WATCHER)
    observers = Observers(fake_plugin.load())
    observers.notify("fb_run_started", run=1)
    import fb_watch.plugin

    assert fb_watch.plugin.seen == [1]
    assert observers.warnings == ["araise: fb_run_started raised SystemExit: no"]


def test_equal_failures_from_many_threads_are_one_warning(fake_plugin):
    fake_plugin.add("fb-araise", RAISER)
    observers = Observers(fake_plugin.load())
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda step: observers.notify("fb_tensor_done", run=0, step=step), range(20)))
    assert observers.warnings == ["araise: fb_tensor_done raised ValueError: always (20 times)"]


def test_the_users_interrupt_is_not_swallowed(fake_plugin):
    fake_plugin.add("fb-stop", "@hookimpl\ndef fb_run_started():\n    raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Observers(fake_plugin.load()).notify("fb_run_started", run=1)


def test_observers_know_whether_anybody_watches(fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    assert not Observers(fake_plugin.load())


def test_declarations_are_no_observers(fake_plugin):
    with pytest.raises(ValueError, match="declaration"):
        Observers([]).notify("fb_methods")
