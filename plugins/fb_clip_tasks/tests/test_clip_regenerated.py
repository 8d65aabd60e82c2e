"""The embedded data are what the committed script makes of their source."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "build_data.py"


@pytest.fixture
def build_data(monkeypatch):
    spec = importlib.util.spec_from_file_location("fb_clip_build_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def test_the_digits_task_can_be_rebuilt_to_the_same_bytes(build_data):
    raw = pytest.importorskip("sklearn.datasets").load_digits()
    arrays = build_data.build_digits(raw.images, raw.target)
    assert build_data.check_task("digits", arrays) == []


def test_a_changed_pixel_is_found(build_data):
    raw = pytest.importorskip("sklearn.datasets").load_digits()
    images = raw.images.copy()
    images[0, 3, 3] += 1
    assert build_data.check_task("digits", build_data.build_digits(images, raw.target))
