"""Validation errors list every problem, with ranges and suggestions."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fusionbench_core.config import RunConfig, explain


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    devices: int = Field(default=1, ge=1)


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")
    density: float = Field(gt=0, le=1)
    trim: Literal["model", "tensor"] = "model"
    weights: list[float] | None = None
    fabric: Inner = Inner()
    fabrics: dict[str, Inner] = {}

    @field_validator("weights")
    @classmethod
    def _sum(cls, weights):
        if weights is not None and sum(weights) != 1:
            raise ValueError("Weights must sum to one")
        return weights


def explained(data, model=Model, **options):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return explain(caught.value, model, **options)


def test_all_problems_are_listed_with_their_keys():
    error = explained({"density": 2, "trim": "row", "densty": 1}, where="method", file="mine.yaml")
    assert error.exit_code == 2
    assert error.what == "method is not valid: 3 problems"
    assert list(error.where) == ["file", "method.density", "method.trim", "method.densty"]
    assert error.where["method.density"].startswith("2: ")
    assert "(allowed: > 0, <= 1)" in error.where["method.density"]
    assert "'model' or 'tensor'" in error.where["method.trim"]
    assert error.where["method.densty"] == "unknown key; did you mean 'density'?"


def test_a_missing_key_tells_its_range():
    error = explained({}, where="method")
    assert error.what == "method is not valid: 1 problem"
    assert error.where["method.density"] == "is required (> 0, <= 1)"


def test_an_unknown_key_like_no_other_gets_the_known_ones():
    error = explained({"density": 1, "xyzzy": 1})
    assert error.where["xyzzy"] == "unknown key; known keys: density, trim, weights, fabric, fabrics"


def test_nested_keys_are_dotted_and_know_their_own_model():
    error = explained({"density": 1, "fabric": {"devcies": 2, "devices": 0}})
    assert error.where["fabric.devcies"] == "unknown key; did you mean 'devices'?"
    assert "(allowed: >= 1)" in error.where["fabric.devices"]


def test_keys_inside_mappings_are_dotted_too():
    error = explained({"density": 1, "fabrics": {"a": {"devices": "many"}}})
    assert error.where["fabrics.a.devices"].startswith("'many': ")


def test_a_validators_message_is_given_without_pydantics_prefix():
    assert explained({"density": 1, "weights": [1, 2]}).where["weights"] == "[1, 2]: weights must sum to one"


def test_the_run_config_explains_itself():
    error = explained({"modelpool": {}, "sed": 1, "fabric": {"devices": 0}}, RunConfig)
    assert "did you mean 'seed'" in error.where["sed"]
    assert any(key.startswith("fabric.devices") for key in error.where)


def test_the_run_config_needs_only_a_pool():
    config = RunConfig.model_validate({"modelpool": {"models": {}}})
    assert config.engine.accumulate == "float32"
    assert config.report.formats == ("json", "md", "html")


def test_every_field_of_the_run_config_is_described():
    models = [
        RunConfig,
        *(type(RunConfig(modelpool={}).__dict__[name]) for name in ("fabric", "engine", "report")),
    ]
    undescribed = [
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert undescribed == []


def test_of_a_union_only_the_branch_that_fits_the_value_is_explained():
    fraction = Annotated[float, Field(gt=0, le=1)]

    class Union(BaseModel):
        density: fraction | tuple[fraction, ...] | None = None

    with pytest.raises(ValidationError) as caught:
        Union(density=2)
    text = str(explain(caught.value, Union, where="method"))
    assert text.splitlines() == [
        "method is not valid: 1 problem",
        "  method.density   2: input should be less than or equal to 1 (allowed: > 0, <= 1)",
    ]
