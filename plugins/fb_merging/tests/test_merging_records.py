from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
from fb_merging.data_driven.records import STATISTICS
from fb_merging.plugin import ENTRIES, fb_methods, fb_statistics
from pydantic import ValidationError

from fusionbench_core import MethodRecord, TensorMethod
from fusionbench_core.registry import default_registry

EACH = pytest.mark.parametrize("record", ENTRIES, ids=lambda record: record.name)


def load(record: MethodRecord):
    return default_registry().load("method", f"merging/{record.name}")


def test_the_plugin_module_imports_nothing_heavy():
    code = (
        "import sys, fb_merging.plugin; "
        "heavy = {'torch', 'numpy', 'pydantic', 'lightning', 'transformers'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_hooks_give_the_same_records_every_time():
    assert tuple(fb_methods()) == tuple(fb_methods()) == ENTRIES
    assert tuple(fb_statistics()) == tuple(fb_statistics()) == STATISTICS


@EACH
def test_the_class_implements_the_record_with_its_defaults(record: MethodRecord):
    cls = load(record)
    assert cls.record == record
    assert cls().capabilities == record.capabilities
    assert f"{cls.__module__}:{cls.__name__}" == record.target


@EACH
def test_parameters_survive_the_config_and_pickling(record: MethodRecord):
    method = load(record)()
    assert type(method).model_validate_json(method.model_dump_json()) == method
    assert pickle.loads(pickle.dumps(method)) == copy.deepcopy(method) == method
    assert hash(type(method)()) == hash(method)


@EACH
def test_every_parameter_is_described_and_unknown_ones_are_rejected(record: MethodRecord):
    cls = load(record)
    assert all(field.description for field in cls.model_fields.values())
    with pytest.raises(ValidationError):
        cls(threshold=20)


@EACH
def test_the_docstring_has_formula_and_reference(record: MethodRecord):
    text = load(record).__doc__
    assert "$$" in text
    assert "Reference:" in text
    assert record.paper is not None
    assert record.paper.arxiv in text


def test_a_tensor_method_declares_a_survey_exactly_if_it_makes_one():
    for record in ENTRIES:
        method = load(record)()
        if isinstance(method, TensorMethod):
            assert (method.survey() is not None) == (method.capabilities.surveys > 0)
