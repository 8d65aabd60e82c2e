"""Calls in a fresh process."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from fusionbench_core.errors import MissingCapability
from fusionbench_core.testing import Violation, fresh


def refuse(what: str) -> None:
    raise MissingCapability(what, fix="ask for less", model="alpha")


class Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def raise_unpicklable() -> None:
    raise Unpicklable("cannot travel", "at all")


def hash_of(text: str) -> int:
    return hash(text)


def test_a_call_is_answered_by_another_process():
    assert fresh.run(math.sqrt, 9.0) == 3.0
    assert fresh.run(os.getpid) != os.getpid()


def test_calls_share_one_process_for_each_hash_seed():
    assert fresh.run(os.getpid) == fresh.run(os.getpid)
    assert fresh.run(os.getpid) == fresh.run(os.getpid, hashseed=1) != fresh.run(os.getpid, hashseed=2)


def test_the_hash_seed_decides_hashes_of_strings():
    for seed in (0, 1):
        interpreter = subprocess.run(
            [sys.executable, "-c", "print(hash('fusion'))"],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        )
        assert fresh.run(hash_of, "fusion", hashseed=seed) == int(interpreter.stdout)


def test_an_error_of_the_function_is_raised_here():
    with pytest.raises(MissingCapability, match="no data") as caught:
        fresh.run(refuse, "no data")
    assert caught.value.where == {"model": "alpha"}


def test_an_error_that_cannot_travel_is_described():
    with pytest.raises(RuntimeError, match="Unpicklable: cannot travel"):
        fresh.run(raise_unpicklable)


def test_what_is_printed_does_not_disturb_the_answer():
    assert fresh.run(print, "noise") is None
    assert fresh.run(math.sqrt, 4.0) == 2.0


def test_a_process_that_dies_is_a_violation_and_is_replaced():
    with pytest.raises(Violation, match="exit status 3"):
        fresh.run(os._exit, 3)
    assert fresh.run(math.sqrt, 4.0) == 2.0
