"""Which commit of the hub a model came from stands in what is written about it."""

from __future__ import annotations

from fusionbench_core.artefact.card import model_card
from fusionbench_core.artefact.describe import describe_pool
from fusionbench_core.artefact.manifest import Manifest
from fusionbench_core.pools import ModelPool, ModelSource, PooledModel

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Fetched(ModelSource):
    def open(self):
        raise NotImplementedError

    def skeleton(self):
        raise NotImplementedError

    def commit(self):
        return None if self.path.startswith("/") else COMMIT


def described() -> dict:
    paths = {"branch": "someone/model@main", "bare": "someone/other", "local": "/models/a@b"}
    models = {name: PooledModel(name, source=Fetched(path=path)) for name, path in paths.items()}
    return describe_pool(ModelPool(models))


def test_a_reference_names_the_commit_that_a_branch_stood_for():
    assert described()["models"] == {
        "branch": f"someone/model@{COMMIT}",
        "bare": f"someone/other@{COMMIT}",
        "local": "/models/a@b",
    }


def test_the_front_matter_of_a_model_card_names_models_without_their_commit():
    method = {"name": "mean", "distribution": "fb-mean", "version": "1.0", "parameters": {}}
    card = model_card(Manifest(kind="weights", method=method, source=None, base_models=described()), None)

    front = card.split("---")[1].splitlines()
    assert front[front.index("base_model:") + 1 :] == ["- someone/model", "- someone/other"]
    assert f"- `bare`: someone/other@{COMMIT}" in card
