"""A model's own Python files run only if the user typed so, for that model."""

from __future__ import annotations

import pytest

from fusionbench_core import ConfigError
from fusionbench_core.config.safety import refuse_silent_trust

TRUSTING = {"modelpool": {"models": {"a": {"path": "a", "trust_remote_code": True}, "b": {"path": "b"}}}}
KEY = "modelpool.models.a.trust_remote_code"


@pytest.mark.parametrize(
    "typed",
    [
        f"{KEY}=true",
        f"+{KEY}=true",
        f"++{KEY}=true",
        "modelpool.models.a={path: a, trust_remote_code: true}",
    ],
)
def test_what_the_user_typed_for_a_model_is_trusted(typed):
    refuse_silent_trust(TRUSTING, ["seed=1", typed])


@pytest.mark.parametrize(
    "typed",
    [
        "seed=1",
        "modelpool.models.b.trust_remote_code=true",
        "modelpool.models.b.trust_remote_code=false",
        "modelpool.models={b: {trust_remote_code: false}}",
        "note=trust_remote_code=true",
    ],
)
def test_a_file_is_not_trusted_for_what_was_typed_about_something_else(typed):
    with pytest.raises(ConfigError, match="may not switch on trust_remote_code") as caught:
        refuse_silent_trust(TRUSTING, [typed])
    assert caught.value.where["config"] == KEY


def test_a_file_may_switch_trust_off():
    refuse_silent_trust({"modelpool": {"trust_remote_code": False}}, [])
