"""What is checked when records and checks are asked for by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fusionbench_core.errors import ConfigError, UnknownName
from fusionbench_core.testing.choosing import chosen_checks, chosen_subjects

NAMES = ("fusion", "fusion/half_sum", "fusion/fusion", "fusion/mean")
SUBJECTS = [SimpleNamespace(name=name) for name in NAMES]


def chosen(*names):
    return [subject.name for subject in chosen_subjects(SUBJECTS, names)]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["fusion/half_sum", "half_sum", "half-sum", "HalfSum", "fusion/half-sum"])
def test_a_record_is_chosen_by_its_full_or_short_name(name):
    assert chosen(name) == ["fusion/half_sum"]


def test_a_namespace_is_the_plugin_itself_even_if_a_record_is_called_like_it():
    assert chosen("fusion") == ["fusion"]
    assert chosen("fusion/fusion") == ["fusion/fusion"]


def test_they_keep_the_order_of_the_plugin_and_come_once():
    assert chosen("mean", "fusion/half_sum", "fusion/mean") == ["fusion/half_sum", "fusion/mean"]
    assert chosen() == list(NAMES)


@pytest.mark.parametrize(("name", "nearest"), [("meen", "'mean'"), ("fusion/meen", "'fusion/mean'")])
def test_an_unknown_record_is_told_with_the_nearest(name, nearest):
    with pytest.raises(UnknownName, match=f"fusion declares no {name!r}") as caught:
        chosen("mean", name)
    assert caught.value.fix is not None
    assert caught.value.fix.startswith(f"did you mean {nearest}")


def test_checks_are_chosen_by_id_in_any_case():
    assert chosen_checks(["fm-203", "FM-305"], "full") == ["FM-203", "FM-305"]
    assert chosen_checks([], "fast") == []


def test_an_unknown_check_and_one_of_another_level_are_refused():
    with pytest.raises(UnknownName, match="there is no check 'FM-20'") as caught:
        chosen_checks(["FM-20"], "full")
    assert "did you mean" in str(caught.value)
    with pytest.raises(ConfigError, match="FM-305 runs at the full level only"):
        chosen_checks(["FM-305"], "fast")
