"""Small language models, in the working directory of every test here."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_llms


@pytest.fixture(scope="session")
def llms(tmp_path_factory) -> Path:
    """A directory with `base`, `a`, `b`, `c` and `gpt2`."""
    directory = tmp_path_factory.mktemp("llms")
    tiny_llms.write_all(directory)
    return directory


@pytest.fixture(autouse=True)
def _among_the_models(llms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(llms)
