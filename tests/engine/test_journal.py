"""The journal: wherever it is cut, what is whole of it counts, and the rest is written over."""

from __future__ import annotations

import pytest

from fusionbench_core.engine.journal import Journal
from fusionbench_core.errors import OutputError


def write(path, names, key="k", *, resume=False):
    journal = Journal(path, key, resume=resume)
    for name in names:
        journal.record(name, len(name))
    journal.close()
    return journal


def test_wherever_it_is_cut_the_whole_lines_count(tmp_path):
    path = tmp_path / "journal.jsonl"
    names = ["one", "two.weight", "drei"]
    write(path, names)
    whole = path.read_bytes()
    ends = [number for number, byte in enumerate(whole, 1) if byte == 10]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        finished = max(0, sum(end <= cut for end in ends) - 1)
        journal = Journal(path, "k", resume=True)
        assert list(journal.done) == names[:finished]
        journal.close()
        # What follows is written over what was cut.
        write(path, names[finished:], resume=True)
        assert path.read_bytes() == whole


def test_a_journal_of_another_plan_is_not_continued(tmp_path):
    write(tmp_path / "j", ["one"], key="old")
    assert write(tmp_path / "j", ["two"], key="new", resume=True).done == {}
    assert list(write(tmp_path / "j", [], key="new", resume=True).done) == ["two"]


@pytest.mark.parametrize(
    "text", [b"\xff\xfe\n", b"[]\n", b'{"plan": "k"}\n[]\n', b'{"plan": "k"}\n{"tensor": 1}\n']
)
def test_what_is_no_journal_is_begun_anew(tmp_path, text):
    (tmp_path / "j").write_bytes(text)
    assert write(tmp_path / "j", ["one"], resume=True).done == {}
    assert list(write(tmp_path / "j", [], resume=True).done) == ["one"]


def test_a_journal_that_cannot_be_written_is_an_output_error(tmp_path):
    with pytest.raises(OutputError):
        Journal(tmp_path, "k", resume=False)
    journal = Journal(tmp_path / "j", "k", resume=False)
    journal._file.close()
    journal._file = open("/dev/full", "wb")  # noqa: SIM115
    with pytest.raises(OutputError, match="disk is full"):
        journal.record("one", 1)
    journal.close()
