"""The examples in the docstrings of the core do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest
import torch

import fusionbench_core

_STATES = {
    name: {"weight": torch.full((2, 2), value)} for name, value in (("sd0", 0.0), ("sd1", 1.0), ("sd2", 3.0))
}
"""State dicts that examples call sd0, sd1 and sd2."""

NOT_RUN = {"fusionbench_core.checkpoints.renamed"}
"""Sketches that end in `...`."""


def _tests() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = []
    for info in pkgutil.walk_packages(fusionbench_core.__path__, "fusionbench_core."):
        if info.name not in NOT_RUN:
            module = importlib.import_module(info.name)
            found += [test for test in finder.find(module, info.name) if test.examples]
    return found


@pytest.mark.parametrize("test", _tests(), ids=lambda test: test.name)
def test_the_example_gives_what_it_says(test):
    test.globs |= _STATES | {"fuse": fusionbench_core.fuse}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    assert runner.run(test, out=said.append).failed == 0, "".join(said)


def test_there_are_examples():
    assert len(_tests()) > 5
