"""`fb list`, `show` and `search`: what is installed, for people and for programs."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fusionbench_core.cli import main


@pytest.fixture
def fb(fake_plugin, monkeypatch):
    """Run `fb` in this process with only the fake plugins."""

    def run(*arguments):
        monkeypatch.setenv("FB_PLUGINS", ",".join(fake_plugin.namespaces()))
        return CliRunner().invoke(main, list(arguments), prog_name="fb")

    return run


@pytest.fixture
def rich_site(fake_plugin):
    """One method that needs everything, one that needs nothing, a task and presets."""
    fake_plugin.add(
        "fb-alpha",
        """
        from fusionbench_core.records import Capabilities, Law, Paper

        @hookimpl
        def fb_methods():
            yield records.MethodRecord(
                name="learned", target="fb_alpha.impl:It", summary="learns", tags=("svd",),
                capabilities=Capabilities(
                    base="required", min_models=2, max_models=5, tasks=("batches",), statistics=("gram",),
                    trains=True, output="module", surveys=1,
                ),
                paper=Paper(title="On It", authors="Doe et al.", year=2024, arxiv="2401.00001"),
            )
            yield records.MethodRecord(
                name="plain", target="fb_alpha.impl:It", summary="the [mean] of all models",
                capabilities=Capabilities(laws=frozenset({Law.PERMUTATION})),
            )

        @hookimpl
        def fb_tasks():
            yield records.TaskRecord(
                name="cars", target="fb_alpha.impl:It", summary="196 cars", metrics=("accuracy",)
            )

        @hookimpl
        def fb_configs():
            yield records.ConfigRecord(package="fb_alpha.presets")
        """,
        files={
            "impl.py": '''
                from pydantic import BaseModel, Field


                class It(BaseModel):
                    """Its formula is $x$."""

                    density: float = Field(default=0.2, gt=0, le=1, description="fraction kept")
                    trim: str
            ''',
            "presets/modelpool/eight.yaml": "# @package _global_\n# Eight models.\nmodels: {}\n",
        },
    )
    return fake_plugin


def test_list_without_a_word_counts_everything(rich_site, fb):
    counts = json.loads(fb("list", "--json").stdout)
    assert (counts["methods"], counts["tasks"], counts["sources"]) == (2, 1, 0)
    assert "fb list methods" in fb("list").stdout


def test_list_prints_aligned_lines_where_there_is_no_terminal(rich_site, fb):
    done = fb("list", "methods")
    assert done.exit_code == 0
    head, learned, plain = done.stdout.splitlines()
    assert head.split() == ["method", "needs", "gives", "summary"]
    assert learned.split() == ["alpha/learned", "base,", "gram,", "batches,", "training", "module", "learns"]
    assert plain.endswith("the [mean] of all models")


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ["alpha/learned", "alpha/plain"]),
        (("--needs-no-data",), ["alpha/plain"]),
        (("--output", "module"), ["alpha/learned"]),
        (("--tag", "svd"), ["alpha/learned"]),
        (("--law", "permutation"), ["alpha/plain"]),
        (("--tag", "nothing"), []),
    ],
)
def test_methods_are_filtered(rich_site, fb, options, names):
    done = fb("list", "methods", "--json", *options)
    assert [method["name"] for method in json.loads(done.stdout)] == names


def test_presets_are_listed_with_their_distribution_and_first_comment(rich_site, fb):
    rows = json.loads(fb("list", "configs", "--json").stdout)
    assert {"name": "modelpool/eight", "distribution": "fb-alpha", "summary": "Eight models."} in rows
    assert any(row["distribution"] == "fusionbench-core" for row in rows)


def test_show_explains_a_method(rich_site, fb):
    shown = fb("show", "learned").stdout
    for words in (
        "alpha/learned   learns",
        "Its formula is $x$.",
        "> 0, <= 1",
        "fraction kept",
        "required",
        "2 to 5 models, base model required, statistic gram, batches of tasks",
        "2 reading passes, by element, gradient descent",
        "Doe et al. On It. 2024, arXiv:2401.00001",
        "https://arxiv.org/abs/2401.00001",
        "fb-alpha 1.0",
        "impl.py:5",
        "fb run method=learned method.density=0.2",
    ):
        assert words in shown


@pytest.mark.parametrize("kind", ["method", "methods"])
def test_show_takes_the_kind_before_the_name(rich_site, fb, kind):
    assert fb("show", kind, "learned").stdout == fb("show", "--kind=method", "learned").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metod", "learned"], "did you mean 'method'"),
        (["source", "learned"], "learned"),
        (["method", "learned", "other"], "one name at a time"),
        (["method", "learned", "--kind=method"], "one name at a time"),
    ],
)
def test_show_refuses_words_that_are_no_kind_and_name(rich_site, fb, words, said):
    done = fb("show", *words)
    assert done.exit_code == 2
    assert said in done.stderr


def test_show_as_json_holds_the_parameters(rich_site, fb):
    shown = json.loads(fb("show", "alpha/learned", "--json").stdout)
    assert shown["parameters"][0] == {
        "name": "density",
        "type": "float",
        "required": False,
        "default": 0.2,
        "range": "> 0, <= 1",
        "description": "fraction kept",
    }
    assert shown["capabilities"]["max_models"] == 5


def test_show_prints_a_preset(rich_site, fb):
    assert "# Eight models." in fb("show", "modelpool/eight").stdout


@pytest.mark.parametrize("name", ["lerned", "modelpool/eigth"])
def test_show_suggests_for_an_unknown_name(rich_site, fb, name):
    done = fb("show", name)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "did you mean" in done.stderr


def test_show_of_an_implementation_that_cannot_be_imported_exits_with_3(fake_plugin, fb):
    fake_plugin.methods("fb-alpha", "one", files={"impl.py": "import missing_thing"})
    done = fb("show", "one")
    assert done.exit_code == 3
    assert "missing_thing" in done.stderr
    assert fb("list", "methods").exit_code == 0


def test_search_finds_by_words_of_paper_and_summary(rich_site, fb):
    hits = json.loads(fb("search", "doe", "learns", "--json").stdout)
    assert [hit["name"] for hit in hits] == ["alpha/learned"]
    assert fb("search", "nothing-like-it").stdout == ""


@pytest.mark.parametrize("word", ["method", "methdos"])
def test_list_takes_the_singular_and_suggests(fb, fake_plugin, word):
    fake_plugin.methods("fb-alpha", "one")
    done = fb("list", word)
    assert (done.exit_code == 0) if word == "method" else ("did you mean 'methods'?" in done.stderr)


def test_method_filters_on_other_kinds_are_an_error(fb, fake_plugin):
    fake_plugin.methods("fb-alpha", "one")
    assert fb("list", "tasks", "--needs-no-data").exit_code == 2
