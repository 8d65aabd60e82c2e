"""Checkpoints with other rows: every row where it belongs, however the tensor is read."""

from __future__ import annotations

import pytest
import torch

from fusionbench_core.checkpoints import StateDictCheckpoint
from fusionbench_core.checkpoints.rows import Fill, RowMap, RowsCheckpoint

INNER = {
    "embed": torch.tensor([[0.0, 0.5], [1, 1.5], [2, 2.5]]),
    "bias": torch.tensor([[10.0, 11, 12]]),
    "other": torch.arange(4),
}
DONOR = {"embed": torch.tensor([[7.0, 8], [9, 10]]), "bias": torch.tensor([[70.0, 90]])}
SECOND = {"embed": torch.tensor([[3.0, 4]]), "bias": torch.tensor([[30.0]])}


def index(*rows: int) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64)


@pytest.fixture
def view():
    donor, second = StateDictCheckpoint(DONOR), StateDictCheckpoint(SECOND)
    rows = RowMap(
        index(2, -1, 0, -1, 1, -1),
        (Fill(index(1, 5), ((donor, index(1, 0)), (second, index(0, 0)))), Fill(index(3))),
    )
    return RowsCheckpoint(StateDictCheckpoint(INNER), {"embed": 0, "bias": 1}, rows)


EMBED = [[2.0, 2.5], [6, 7], [0, 0.5], [0, 0], [1, 1.5], [5, 6]]
BIAS = [[12.0, 60, 10, 0, 11, 50]]


def test_rows_are_moved_and_filled_along_their_dimension(view):
    assert view.tensor("embed").tolist() == EMBED
    assert view.tensor("bias").tolist() == BIAS
    assert view.info("embed").shape == (6, 2)
    assert view.info("bias").shape == (1, 6)
    assert torch.equal(view.tensor("other"), INNER["other"])


@pytest.mark.parametrize(
    ("name", "flat"),
    [("embed", [value for row in EMBED for value in row]), ("bias", BIAS[0]), ("other", [0, 1, 2, 3])],
)
def test_any_part_is_the_same_part_of_the_whole(view, name, flat):
    for start in range(len(flat) + 1):
        for stop in range(start, len(flat) + 3):
            assert view.chunk(name, start, stop).tolist() == flat[start:stop]


def test_the_identity_follows_the_rows_and_the_donors(view):
    inner = StateDictCheckpoint(INNER)

    def identity(own, *fills):
        return RowsCheckpoint(inner, {"embed": 0}, RowMap(index(*own), fills)).identity()

    plain = identity((0, 1, -1), Fill(index(2)))
    assert identity((0, 1, -1), Fill(index(2))) == plain
    donors = [StateDictCheckpoint(DONOR), StateDictCheckpoint(SECOND)]
    others = [identity((0, 1, -1), Fill(index(2), ((donor, index(0)),))) for donor in donors]
    assert len({plain, identity((1, 0, -1), Fill(index(2))), *others}) == 4


def test_half_precision_means_are_not_rounded_on_the_way():
    values = [1.0, 1.0078125, 1.0078125]
    donors = [StateDictCheckpoint({"w": torch.tensor([[value]], dtype=torch.bfloat16)}) for value in values]
    inner = StateDictCheckpoint({"w": torch.zeros(1, 1, dtype=torch.bfloat16)})
    fill = Fill(index(0), tuple((donor, index(0)) for donor in donors))
    merged = RowsCheckpoint(inner, {"w": 0}, RowMap(index(-1), (fill,))).tensor("w")
    assert merged.dtype == torch.bfloat16
    assert merged.item() == torch.tensor(sum(values) / 3, dtype=torch.float64).to(torch.bfloat16).item()


def test_tied_names_stay_tied():
    shared = torch.ones(2, 2)
    inner = StateDictCheckpoint({"embed": shared, "head": shared})
    view = RowsCheckpoint(inner, {"embed": 0, "head": 0}, RowMap(index(1, 0)))
    assert view.aliases == {"head": "embed"}
    assert list(view) == ["embed", "head"]
