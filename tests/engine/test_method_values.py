"""Methods are equal by value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ValidationError
from toy_methods import record

from fusionbench_core import TensorMethod, implements


class Window(BaseModel):
    bounds: list[float] = [0.0, 1.0]


@implements(record("adjustable"))
class Adjustable(TensorMethod):
    weights: tuple[float, ...] | Mapping[str, float] = ()
    layers: list[int] = [1, 2]
    window: Window = Window()

    def merge(self, group):
        return group.models[0]


@implements(record("other"))
class Other(Adjustable):
    pass


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({}, {"layers": [1, 2]}),
        ({"weights": {"a": 1, "b": 2}}, {"weights": {"b": 2.0, "a": 1.0}}),
        ({"weights": [0.0, 1.0]}, {"weights": (-0.0, 1.0)}),
        ({"window": {}}, {"window": {"bounds": (0, 1)}}),
    ],
)
def test_equal_parameters_make_equal_methods_with_one_hash(one, same):
    assert Adjustable(**one) == Adjustable(**same)
    assert len({Adjustable(**one), Adjustable(**same)}) == 1


@pytest.mark.parametrize("changed", [{"weights": {"a": 1}}, {"layers": [2, 1]}, {"window": {"bounds": []}}])
def test_other_parameters_make_another_method(changed):
    assert len({Adjustable(), Adjustable(**changed)}) == 2


def test_two_classes_with_equal_parameters_are_two_methods():
    assert len({Adjustable(), Other()}) == 2


def test_a_parameter_cannot_have_the_name_of_an_argument_of_fuse():
    with pytest.raises(TypeError, match="no parameter can be called scope"):

        class Taken(TensorMethod):
            scope: str = "all"


@implements(record("numbers"))
class Numbers(TensorMethod):
    density: float = 0.5
    rank: int | None = None
    weights: float | tuple[float, ...] = 1.0
    normalize: bool | Literal["l1"] = False
    anything: Any = None

    def merge(self, group):
        return group.models[0]


@pytest.mark.parametrize("name", ["density", "rank", "weights"])
@pytest.mark.parametrize("value", [True, False])
def test_true_and_false_are_no_numbers(name, value):
    with pytest.raises(ValidationError, match=f"{name}\n.*{str(value).lower()} is no value"):
        Numbers(**{name: value})


def test_true_and_false_are_values_where_they_are_meant():
    assert Numbers(normalize=True, anything=False).normalize is True
