"""Models of the hub: what is asked for, and what is said when it cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fusionbench_core import NotFound, Offline, hub_commit, locate_model, split_revision

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with one repository, `some/model`: it holds `hub.files`, and `hub.asked` is what it was asked."""

    class Hub:
        def __init__(self) -> None:
            self.files: list[str] = []
            self.asked: list[dict] = []

        def download(self, name: str, **options) -> str:
            self.asked.append({"name": name, **options})
            directory = tmp_path / "models--some--model/snapshots/abc"
            directory.mkdir(parents=True, exist_ok=True)
            for file in self.files:
                if any(Path(file).match(pattern) for pattern in options["allow_patterns"]):
                    (directory / file).touch()
            return str(directory)

    found = Hub()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.download)
    return found


def test_torch_files_are_fetched_only_where_there_are_no_safetensors(hub):
    hub.files = ["config.json", "model.safetensors", "pytorch_model.bin"]
    directory = locate_model("some/model@v1")
    assert sorted(file.name for file in directory.iterdir()) == ["config.json", "model.safetensors"]
    assert (hub.asked[0]["name"], hub.asked[0]["revision"]) == ("some/model", "v1")
    assert len(hub.asked) == 1
    (directory / "model.safetensors").unlink()
    hub.files.remove("model.safetensors")
    assert (locate_model("some/model") / "pytorch_model.bin").is_file()
    assert hub_commit(directory) == "abc"


def test_a_model_can_be_asked_for_without_weights_and_with_more(hub):
    hub.files = ["config.json", "model.safetensors", "tokenizer.json", "modeling.py"]
    directory = locate_model("some/model", weights=False)
    assert sorted(file.name for file in directory.iterdir()) == ["config.json", "tokenizer.json"]
    locate_model("some/model", extra=["*.py"], weights=False)
    assert (directory / "modeling.py").is_file()


def test_a_repository_without_weights_is_no_model(hub):
    hub.files = ["config.json"]
    with pytest.raises(Offline, match="some/model") as caught:
        locate_model("some/model", "v2")
    assert "no weights of 'some/model'" in str(caught.value)
    assert "hf download some/model --revision v2" in str(caught.value)


def test_a_local_path_asks_nobody(hub, tmp_path):
    assert locate_model(str(tmp_path)) == tmp_path
    assert hub.asked == []
    assert hub_commit(tmp_path) is None


def test_without_the_hubs_library_the_user_is_told_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(NotFound, match="some/model") as caught:
        locate_model("some/model")
    assert "pip install huggingface_hub" in str(caught.value)


def test_a_revision_given_apart_wins():
    assert split_revision("some/model@v1") == ("some/model", "v1")
    assert split_revision("some/model@v1", "v2") == ("some/model", "v2")
    assert split_revision("some/model") == ("some/model", None)
