"""How `fuse` is called."""

from __future__ import annotations

import pytest
import torch
from toy_methods import Mean

from fusionbench_core import ConfigError, MissingCapability, fuse

MODELS = {"a": {"w": torch.tensor([1.0, 2.0])}, "b": {"w": torch.tensor([3.0, 6.0])}}


def test_the_method_may_be_given_by_its_keyword():
    assert fuse(method=Mean(), models=MODELS)["w"].tolist() == [2.0, 4.0]
    assert fuse(Mean(), MODELS)["w"].tolist() == [2.0, 4.0]


def test_a_call_without_a_method_or_without_models_says_what_to_give():
    with pytest.raises(ConfigError, match="there is no method") as caught:
        fuse(models=MODELS)
    assert "fuse(" in str(caught.value.fix)
    with pytest.raises(MissingCapability, match="no models to fuse"):
        fuse(Mean())
