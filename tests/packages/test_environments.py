"""The clean environments are what they claim to be: third-party packages, and ours only if installed."""

from __future__ import annotations

import json

import pytest

pytestmark = [pytest.mark.install, pytest.mark.xdist_group("packages")]

FOUND = """
    import importlib.util, json, sys
    specs = {name: importlib.util.find_spec(name) for name in sys.argv[1:]}
    print(json.dumps({name: spec.origin for name, spec in specs.items() if spec is not None}))
"""


def found(environment, *packages: str) -> dict[str, str]:
    return json.loads(environment.run_code(FOUND, *packages).stdout)


def test_nothing_of_ours_is_importable_until_it_is_installed(environments, wheels):
    packages = [wheel.package for wheel in wheels.values()]
    assert set(found(environments(), *packages, "torch", "click")) == {"torch", "click"}


def test_no_metadata_of_ours_is_visible_until_it_is_installed(environments, wheels):
    code = "import importlib_metadata as m; print([d.name for d in m.distributions()])"
    visible = environments().run_code(code).stdout
    assert "'torch'" in visible
    assert not [name for name in wheels if f"'{name}'" in visible]


def test_installed_packages_come_from_the_environment_itself(everything, projects):
    packages = [name.replace("-", "_") for name in projects]
    origins = found(everything, *packages)
    assert set(origins) == set(packages)
    assert [origin for origin in origins.values() if not origin.startswith(str(everything.site))] == []
