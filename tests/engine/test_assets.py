"""An artefact carries along the files of its model, and nothing that a link smuggles in."""

from __future__ import annotations

import pytest
import toy

from fusionbench_core import Fused, ModelPool, PooledModel, UntrustedFormat
from fusionbench_core.artefact.write import ArtefactWriter
from fusionbench_core.engine.options import EngineOptions


def written(model, output):
    pool = ModelPool({"a": PooledModel("a", source=toy.MlpSource(path=str(model)))})
    writer = ArtefactWriter(output, toy.Stack(), toy.STACK, pool, options=EngineOptions())
    writer.fused(Fused.weights({}))
    writer.publish()
    return output


@pytest.fixture
def model(tmp_path):
    toy.make_models(tmp_path / "models", 1)
    return tmp_path / "models" / "a"


def test_a_link_out_of_the_model_is_not_followed(model, tmp_path):
    secret = tmp_path / "id_rsa"
    (model / "mlp.json").rename(secret)
    (model / "mlp.json").symlink_to(secret)
    with pytest.raises(UntrustedFormat, match=r"mlp\.json is a link that leads out") as caught:
        written(model, tmp_path / "out")
    assert str(secret) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_links_of_the_cache_of_the_hub_are_followed(model, tmp_path):
    repository = tmp_path / "models--me--mine"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for file in model.iterdir():
        blob = file.rename(repository / "blobs" / file.name[::-1])
        (snapshot / file.name).symlink_to(blob)
    assert (written(snapshot, tmp_path / "out") / "mlp.json").read_text() == "[4, 8, 3]"
