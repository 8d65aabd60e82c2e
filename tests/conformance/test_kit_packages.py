"""Every check on packages catches the distribution that is wrong in that way, and only that one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import dedent

import pytest

from fusionbench_core.plugins import configure, installed_plugins
from fusionbench_core.plugins.namespaces import trouble
from fusionbench_core.registry import default_registry
from fusionbench_core.testing import run_checks
from fusionbench_core.testing.plugin_subject import PluginSubject
from fusionbench_core.testing.result import FAILING, Result

PLUGIN = """
from fusionbench_core import records
from fusionbench_core.hookspecs import hookimpl


@hookimpl
def fb_methods():
    yield records.MethodRecord(name="one", target="fb_faulty.one:One", summary="does nothing")
"""
CONFIGS = """
@hookimpl
def fb_configs():
    yield records.ConfigRecord(package="fb_faulty.configs")
"""
METADATA = """\
Metadata-Version: 2.4
Name: fb-faulty
Version: 1.0
Summary: A plugin
License-Expression: MIT
Requires-Python: >=3.10
Requires-Dist: fusionbench-core>=1.0,<2
"""
POOL = "source: faulty/none\nmodels: {a: somewhere}\n"


@dataclass(frozen=True)
class Package:
    """A distribution as it lies in site-packages."""

    name: str = "fb-faulty"
    metadata: str = METADATA
    points: str = "[fusionbench]\nfaulty = fb_faulty.plugin\n"
    plugin: str = PLUGIN
    files: dict[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()

    def write(self, site: Path) -> None:
        """Install it."""
        info = f"{self.name.replace('-', '_')}-1.0.dist-info"
        files = {
            "fb_faulty/__init__.py": "",
            "fb_faulty/plugin.py": self.plugin,
            "fb_faulty/one.py": "class One: ...\n",
            "fb_faulty/py.typed": "",
            **self.files,
            f"{info}/METADATA": self.metadata.replace("Name: fb-faulty", f"Name: {self.name}"),
            f"{info}/entry_points.txt": self.points,
        }
        kept = {path: text for path, text in files.items() if path not in self.without}
        kept[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*kept, f"{info}/RECORD"])
        for path, text in kept.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(dedent(text))


SOUND = Package()


def added(source: str) -> Package:
    return replace(SOUND, plugin=PLUGIN + dedent(source))


def method(target: str, name: str = "two") -> str:
    record = f"records.MethodRecord(name={name!r}, target={target!r}, summary='')"
    return PLUGIN + f"    yield {record}\n"


FAULTS = {
    "it cannot be imported": ("FP-101", added("import no_such_module_anywhere")),
    "it has two entry points": (
        "FP-101",
        replace(SOUND, points=SOUND.points + "other = fb_faulty.plugin\n"),
    ),
    "it asks for another core": (
        "FP-101",
        replace(SOUND, metadata=METADATA.replace(">=1.0,<2", ">=99,<100")),
    ),
    "it names no licence": (
        "FP-102",
        replace(SOUND, metadata=METADATA.replace("License", "X-License")),
    ),
    "it has no upper bound": ("FP-102", replace(SOUND, metadata=METADATA.replace(">=1.0,<2", ">=1.0"))),
    "it has no lower bound": ("FP-102", replace(SOUND, metadata=METADATA.replace(">=1.0,<2", "<2"))),
    "it has another name": ("FP-103", replace(SOUND, points="[fusionbench]\nwrong = fb_faulty.plugin\n")),
    "its name is reserved": (
        "FP-103",
        replace(SOUND, name="fb-task", points="[fusionbench]\ntask = fb_faulty.plugin\n"),
    ),
    "it computes while it is imported": ("FP-104", added("import time\ntime.sleep(0.08)")),
    "it imports numpy": ("FP-105", added("import numpy")),
    "it imports numpy by way of another module": (
        "FP-105",
        replace(added("import fb_faulty.one"), files={"fb_faulty/one.py": "import numpy\nclass One: ...\n"}),
    ),
    "it prints": ("FP-106", added("print('welcome')")),
    "its hook prints": ("FP-106", replace(SOUND, plugin=PLUGIN + "    print('asked')\n")),
    "its hook raises": ("FP-106", replace(SOUND, plugin=PLUGIN + "    raise ValueError('inside')\n")),
    "its hook yields words": ("FP-106", replace(SOUND, plugin=PLUGIN + "    yield 'two'\n")),
    "it declares something else each time": (
        "FP-106",
        added(
            """
            import itertools
            COUNT = itertools.count()

            @hookimpl
            def fb_tasks():
                name = f"task_{next(COUNT)}"
                yield records.TaskRecord(name=name, target="fb_faulty.one:One", summary="")
            """
        ),
    ),
    "it writes a file": ("FP-106", added("open('faulty.txt', 'w').close()")),
    "it warns": ("FP-106", added("import warnings\nwarnings.warn('old')")),
    "its target is not there": ("FP-107", replace(SOUND, plugin=method("fb_faulty.one:Two"))),
    "its target needs what is not there": (
        "FP-107",
        replace(
            SOUND,
            plugin=method("fb_faulty.two:Two"),
            files={"fb_faulty/two.py": "import no_such_module"},
        ),
    ),
    "its target is no class": (
        "FP-107",
        replace(SOUND, plugin=method("fb_faulty.two:TWO"), files={"fb_faulty/two.py": "TWO = 2"}),
    ),
    "its hook has a slip in its name": ("FP-108", added("@hookimpl\ndef fb_metods():\n    return []")),
    "its hook is not marked": ("FP-108", added("def fb_tasks():\n    return []")),
    "its hook wants an argument that is not given": (
        "FP-108",
        added("@hookimpl\ndef fb_run_started(runn):\n    pass"),
    ),
    "it declares a name twice": ("FP-109", replace(SOUND, plugin=method("fb_faulty.one:One", "one"))),
    "its target seeds torch": (
        "FP-110",
        replace(SOUND, files={"fb_faulty/one.py": "import torch\ntorch.manual_seed(0)\nclass One: ...\n"}),
    ),
    "it is not typed": ("FP-111", replace(SOUND, without=frozenset({"fb_faulty/py.typed"}))),
    "its presets are missing": (
        "FP-112",
        replace(added(CONFIGS), files={"fb_faulty/configs/__init__.py": ""}),
    ),
    "its preset does not parse": (
        "FP-112",
        replace(added(CONFIGS), files={"fb_faulty/configs/modelpool/small.yaml": "models: [a: 1"}),
    ),
    "its preset has an unknown key": (
        "FP-112",
        replace(added(CONFIGS), files={"fb_faulty/configs/modelpool/small.yaml": POOL + "modles: 3\n"}),
    ),
    "its preset names what it does not have": (
        "FP-112",
        replace(added(CONFIGS), files={"fb_faulty/configs/modelpool/small.yaml": POOL}),
    ),
    "it installs tests": ("FP-113", replace(SOUND, files={"tests/__init__.py": ""})),
    "its target writes beside itself": (
        "FP-114",
        replace(
            SOUND,
            files={
                "fb_faulty/one.py": """
                    from pathlib import Path
                    Path(__file__).with_name("cache.bin").write_bytes(b"1")
                    class One: ...
                """
            },
        ),
    ),
}
"""What is wrong -> the check that must catch it, and the distribution."""

FULL = frozenset({"FP-110", "FP-112", "FP-114"})


@pytest.fixture
def checked(fake_plugin, monkeypatch, tmp_path):
    """Install distributions into an empty directory, and check the plugin that they make."""
    monkeypatch.chdir(tmp_path)

    def check(*packages: Package, full: frozenset[str] = frozenset(), beside: str = "") -> list[Result]:
        for package in packages:
            package.write(fake_plugin.root)
        fake_plugin.packages.append("fb_faulty")
        configure()
        namespace = packages[0].points.splitlines()[1].partition(" ")[0]
        monkeypatch.setenv("FB_PLUGINS", f"{namespace},{beside}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plugin = installed_plugins().get(namespace)
            subject = PluginSubject(None, plugin, default_registry())
            found = list(run_checks([subject], "fast"))
            return found + (list(run_checks([subject], "full", only=full)) if full else [])

    return check


def caught(results: list[Result]) -> set[str]:
    return {result.check for result in results if result.status in FAILING}


def test_a_sound_distribution_passes_everything(checked):
    package = replace(
        added(CONFIGS), files={"fb_faulty/configs/modelpool/small.yaml": POOL.replace("faulty/none", "other")}
    )
    results = checked(package, full=FULL)
    assert {result.check: result.message for result in results if result.status != "passed"} == {}
    assert len(results) == 14


@pytest.mark.parametrize("what", FAULTS)
def test_a_faulty_distribution_is_caught_by_its_check_alone(checked, what):
    check, package = FAULTS[what]
    assert caught(checked(package, full=FULL & {check})) == {check}


def test_two_distributions_of_one_namespace_conflict(checked):
    assert caught(checked(SOUND, replace(SOUND, name="faulty"))) == {"FP-109"}


def test_a_package_of_others_may_change_what_it_likes(checked, fake_plugin):
    (fake_plugin.root / "fbt_other.py").write_text("import os\nos.environ['FBT_OTHER'] = 'set'\n")
    package = replace(SOUND, files={"fb_faulty/one.py": "import fbt_other\nclass One: ...\n"})
    assert caught(checked(package, full=frozenset({"FP-110"}))) == set()


def test_a_short_name_that_others_use_is_mentioned(checked, fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    (shared,) = (r for r in checked(SOUND, beside="alpha") if r.check == "FP-109")
    assert shared.status == "passed"
    assert "method one" in shared.suggestion


def test_the_namespace_of_a_first_party_plugin_is_not_free():
    assert trouble("merging", "fb-merging") is None
    assert "belongs to fb-merging" in trouble("merging", "merging")


def test_a_plugin_file_is_checked_for_purity_alone(tmp_path, monkeypatch):
    file = tmp_path / "fbt_one_file.py"
    file.write_text(PLUGIN.replace("fb_faulty.one:One", "fbt_one_file:One") + "class One: ...\n")
    configure(files=[file])
    try:
        plugin = list(installed_plugins())[-1]
        found = {
            r.check: r.status for r in run_checks([PluginSubject(None, plugin, default_registry())], "fast")
        }
    finally:
        configure()
    passed = {check for check, status in found.items() if status == "passed"}
    assert passed == {"FP-106", "FP-107", "FP-108", "FP-109"}
    assert set(found.values()) == {"passed", "skipped"}
