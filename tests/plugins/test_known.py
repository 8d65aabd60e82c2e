"""The table behind the install lines tells the truth about the plugins that are installed here."""

from __future__ import annotations

import pytest

from fusionbench_core.known import NAMES, NAMESPACES, distribution_of
from fusionbench_core.plugins import load_plugins

KINDS = [(namespace, kind) for namespace, kinds in NAMES.items() for kind in kinds]


@pytest.mark.parametrize(("namespace", "kind"), KINDS)
def test_every_known_name_is_declared_by_its_plugin(namespace, kind):
    plugin = load_plugins().get(namespace)
    if plugin is None:
        pytest.skip(f"{NAMESPACES[namespace]} is not installed")
    assert plugin.distribution == NAMESPACES[namespace]
    declared = {record.name for record in plugin.records.get(kind, ())}
    assert set(NAMES[namespace][kind].split()) <= declared


def test_names_are_known_short_and_full():
    assert distribution_of("method", "slerp") == "fb-merging"
    assert distribution_of("method", "mixing/anything") == "fb-mixing"
    assert distribution_of("method", "nobody") is None
