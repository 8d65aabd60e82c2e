"""Whatever stands in a config or on the command line: it is composed, or refused with a documented error."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import toy
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fusionbench_core.cli.configured import validate_run
from fusionbench_core.config import compose
from fusionbench_core.errors import FusionError
from fusionbench_core.plugins.local import load_file
from fusionbench_core.registry import Registry
from fusionbench_core.run import prepare

FUZZ = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

known = (
    "method modelpool taskpool engine seed name models base source scope heads tokenizer tokens padding "
    "defaults hydra fabric report tune output_dir threads memory_budget"
)
keys = st.one_of(st.sampled_from(known.split(" ")), st.text(max_size=6))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["mean", "${seed}", "${oc.env:HOME}", "${", "???", "_target_", "os.system", "a: b", "base"]
    ),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)


marks = st.text("{}[]:,&*!|>-?'\"#@ab\n \t$", max_size=40)


@pytest.fixture(scope="module")
def registry():
    return Registry([load_file(Path(toy.__file__), ())])


def composed_or_refused(registry, overrides, file) -> None:
    with contextlib.suppress(FusionError):
        config = validate_run(compose(overrides, file, registry=registry).values, file)
        prepare(config, registry)


@FUZZ
@given(content=st.dictionaries(keys, trees, max_size=5))
@example(content={"method": {"name": "mean"}, "modelpool": {"models": {"a": "."}, "tokenizer": "base"}})
@example(content={"method": {"name": "mean"}, "modelpool": {"models": {"a": {"path": None}}, "base": {}}})
def test_any_tree_is_composed_or_refused(tmp_path, registry, content):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    composed_or_refused(registry, [], file)


@FUZZ
@given(
    content=st.one_of(
        st.binary(max_size=60), st.text("{}[]:,&*!|>-?'\"#@ab\n \t$", max_size=40).map(str.encode)
    )
)
@example(content=b"a: &a [*a]")
@example(content=b"!!python/object/apply:os.system ['true']")
@example(content=b"a: " + b"[" * 1000)
@example(content=b"\xff\xfe")
def test_any_bytes_are_composed_or_refused(tmp_path, registry, content):
    file = tmp_path / "mine.yaml"
    file.write_bytes(content)
    composed_or_refused(registry, [], file)


@FUZZ
@given(words=st.lists(st.text("abc=.~+{}[]$,:'\"/ \\@!_0", max_size=14), max_size=3))
@example(words=["method=mean", "method.x={a: [1"])
@example(words=["seed=${oc.env:HOME}"])
def test_any_words_are_composed_or_refused(tmp_path, registry, words):
    file = tmp_path / "mine.yaml"
    file.write_text("method: {name: mean}\nseed: 1\n")
    composed_or_refused(registry, words, file)
