"""Installed plugins are found from metadata alone."""

from __future__ import annotations

import os
import sys

import pytest

from fusionbench_core.plugins import discovery_cache, find
from fusionbench_core.plugins.discovery import namespace_of


def found(namespace):
    return next(plugin for plugin in find() if plugin.namespace == namespace)


def test_finding_imports_nothing(fake_plugin):
    fake_plugin.add("fb-alpha", "raise RuntimeError('imported')")
    plugin = found("alpha")
    assert (plugin.status, plugin.distribution, plugin.version) == ("found", "fb-alpha", "1.0")
    assert (plugin.module, plugin.requires) == ("fb_alpha.plugin", "<2,>=1.0")
    assert "fb_alpha" not in sys.modules


@pytest.mark.parametrize(
    ("distribution", "namespace"),
    [("fb-clip-tasks", "clip_tasks"), ("FB.Clip_tasks", "clip_tasks"), ("other", "other")],
)
def test_a_namespace_is_the_distributions_name_without_fb(distribution, namespace):
    assert namespace_of(distribution) == namespace


def test_a_plugin_for_another_core_is_incompatible_and_says_both_versions(fake_plugin):
    fake_plugin.add("fb-alpha", "", requires="fusionbench-core>=99")
    plugin = found("alpha")
    assert plugin.status == "incompatible"
    assert ">=99" in plugin.cause
    assert "1.0" in plugin.cause
    assert "pip install --upgrade fb-alpha" in plugin.fix


def test_a_range_of_an_extra_does_not_count(fake_plugin):
    fake_plugin.add("fb-alpha", "", requires='fusionbench-core>=99; extra == "new"')
    assert found("alpha").status == "found"


def test_a_plugin_without_a_range_fits_any_core(fake_plugin):
    fake_plugin.add("fb-alpha", "", requires="fusionbench-core-extras>=99")
    assert found("alpha").status == "found"


def test_a_namespace_that_is_not_the_distributions_is_broken(fake_plugin):
    fake_plugin.add("fb-alpha", "", namespace="merging2")
    plugin = found("merging2")
    assert plugin.status == "broken"
    assert "'alpha'" in plugin.cause


def test_two_distributions_with_one_namespace_are_a_conflict_that_names_both(fake_plugin):
    fake_plugin.add("fb-alpha", "")
    fake_plugin.add("impostor", "", namespace="alpha")
    plugin = found("alpha")
    assert plugin.status == "conflict"
    assert "fb-alpha 1.0" in plugin.cause
    assert "impostor 1.0" in plugin.cause


def test_malformed_metadata_breaks_only_its_plugin(fake_plugin):
    fake_plugin.add("fb-alpha", "", requires="fusionbench-core >>> 1")
    fake_plugin.add("fb-beta", "")
    assert found("alpha").status == "broken"
    assert found("beta").status == "found"


@pytest.fixture
def settled(monkeypatch):
    """Let the cache trust files that were written a moment ago."""
    monkeypatch.setattr(discovery_cache, "_SETTLED_SECONDS", -1.0)


def test_a_second_look_reads_no_metadata(fake_plugin, settled, monkeypatch):
    fake_plugin.add("fb-alpha", "")
    first = find()
    monkeypatch.setattr("fusionbench_core.plugins.discovery._read", lambda: pytest.fail("read again"))
    assert find() == first


def test_a_new_distribution_is_seen_at_once(fake_plugin, settled):
    find()
    fake_plugin.add("fb-alpha", "")
    assert found("alpha").status == "found"


def test_changed_metadata_is_seen_at_once(fake_plugin, settled):
    fake_plugin.add("fb-alpha", "", requires="fusionbench-core>=99")
    assert found("alpha").status == "incompatible"
    metadata = fake_plugin.root / "fb_alpha-1.0.dist-info" / "METADATA"
    metadata.write_text("Metadata-Version: 2.1\nName: fb-alpha\nVersion: 1.0\n")
    os.utime(metadata, ns=(1, 1))
    assert found("alpha").status == "found"


def test_a_damaged_cache_is_ignored(fake_plugin, settled):
    fake_plugin.add("fb-alpha", "")
    find()
    for file in os.scandir(os.environ["FB_CACHE_HOME"]):
        with open(file.path, "w") as stream:
            stream.write("{")
    assert found("alpha").status == "found"
