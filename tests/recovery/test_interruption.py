"""Whatever stops a run, and whenever: no half artefact, and a resumed run gives the same bits."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import fault_server
import pytest
import toy
import yaml

from fusionbench_core.checkpoints import open_checkpoint
from fusionbench_core.checkpoints.writer import SafetensorsWriter

NOBODY = 65534


class Laboratory:
    """An empty directory with sharded models and a config, and a server that runs `fb` in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.number = 0
        models = toy.make_models(root / "models")
        for path in models.values():
            split(Path(path))
        config = {
            "method": {"name": "mean"},
            "modelpool": {"source": "mlp", "models": {name: models[name] for name in "abc"}},
            "taskpool": None,
            "engine": {"threads": 1, "max_shard_size": "150B"},
        }
        (root / "mine.yaml").write_text(yaml.safe_dump(config))
        self._server = subprocess.Popen(
            [sys.executable, fault_server.__file__, str(root / "warm")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "FB_CACHE_HOME": str(root / "cache"),
                "FB_CONFIG_HOME": str(root / "config"),
                "OMP_NUM_THREADS": "1",
            },
        )
        self.start("first")  # writes caches too
        self.operations = self.start("whole").operations
        self.wanted = contents(self.root / "whole/model")

    def start(self, name: str, *words: str, **fault) -> Ended:
        """`fb run` into the directory `name`."""
        return self.fb("run", "-c", "mine.yaml", "-o", name, *words, **fault)

    def resume(self, name: str, **fault) -> Ended:
        return self.fb("run", "--resume", name, **fault)

    def fb(self, *words: str, **fault) -> Ended:
        job = {"words": words, "cwd": str(self.root), **fault}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return Ended(**json.loads(self._server.stdout.readline()))

    def fresh(self) -> str:
        self.number += 1
        return f"run{self.number}"

    def check(self, name: str) -> None:
        """A model that is there is whole, and there is nothing else in it."""
        model = self.root / name / "model"
        if model.exists():
            assert contents(model) == self.wanted

    def go_on(self, name: str) -> None:
        """Resume, or start anew what was stopped before it had a config."""
        ended = self.resume(name) if (self.root / name / "config.yaml").exists() else self.start(name)
        assert ended.status == 0, ended.output
        assert contents(self.root / name / "model") == self.wanted

    def close(self) -> None:
        self._server.communicate(timeout=60)


@dataclass
class Ended:
    """How a run ended: its exit status, operations on the disk, and what it printed."""

    status: int
    operations: list[str]
    output: str


def split(model: Path) -> None:
    """Write a model's weights again, in shards."""
    checkpoint = open_checkpoint(model)
    layout = [(name, checkpoint.info(name)) for name in checkpoint]
    tensors = {name: checkpoint.tensor(name).clone() for name in checkpoint}
    (model / "model.safetensors").unlink()
    writer = SafetensorsWriter(model, layout, max_shard_size=150)
    for name, tensor in tensors.items():
        writer.write(name, 0, tensor)
    writer.finish()


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.fixture(scope="module")
def laboratory():
    # Not below pytest's own directory, which other users may not enter.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        made = Laboratory(Path(place))
        yield made
        made.close()


def points(laboratory: Laboratory, count: int, seed: int) -> list[int]:
    """Operations at which to stop, spread over the whole run, where exactly being random."""
    source, last = random.Random(seed), len(laboratory.operations)
    return [1 + int((number + source.random()) * last / count) for number in range(count)]


def middle(laboratory: Laboratory) -> int:
    """An operation in the middle of the merge: two tensors are written and noted."""
    noted = [number for number, done in enumerate(laboratory.operations, 1) if '"tensor"' in done]
    return noted[1] + 1


@pytest.mark.parametrize(("fault", "seed"), [("kill", 1), ("torn", 2)])
def test_a_killed_run_goes_on_to_the_same_bits(laboratory, fault, seed):
    for at in points(laboratory, 12, seed):
        name = laboratory.fresh()
        ended = laboratory.start(name, fault=fault, at=at)
        assert ended.status == -9, (at, ended.output)
        laboratory.check(name)
        laboratory.go_on(name)


def test_around_the_moment_of_publication_nothing_is_lost(laboratory):
    published = next(
        number
        for number, done in enumerate(laboratory.operations, 1)
        if done.endswith(".model.partial") and done.startswith("replace")
    )
    for at in range(published - 2, published + 4):
        name = laboratory.fresh()
        assert laboratory.start(name, fault="kill", at=at).status == -9
        laboratory.check(name)
        laboratory.go_on(name)


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(laboratory):
    name, source, kills = laboratory.fresh(), random.Random(3), 0
    laboratory.start(name, fault="kill", at=12)
    while True:
        ended = laboratory.resume(name, fault="torn", at=6 + 4 * kills + source.randrange(3))
        laboratory.check(name)
        if ended.status == 0:
            break
        assert ended.status == -9, ended.output
        kills += 1
    assert kills >= 8
    assert contents(laboratory.root / name / "model") == laboratory.wanted


def test_ctrl_c_says_how_to_go_on(laboratory):
    for at in points(laboratory, 6, 4):
        name = laboratory.fresh()
        ended = laboratory.start(name, fault="interrupt", at=at)
        assert ended.status == 130, (at, ended.output)
        assert "Traceback" not in ended.output
        if (laboratory.root / name / "log.txt").exists():
            assert f"fb run --resume {name}" in ended.output
        laboratory.check(name)
        laboratory.go_on(name)


def test_a_full_disk_is_named_and_nothing_is_lost(laboratory):
    for at in points(laboratory, 8, 5):
        name = laboratory.fresh()
        ended = laboratory.start(name, fault="full", at=at)
        laboratory.check(name)
        if ended.status:  # the last operations of a run take no space
            assert ended.status == 8, (at, ended.output)
            assert "No space left on device" in ended.output
            assert "Traceback" not in ended.output
            laboratory.go_on(name)


def test_a_file_system_with_small_files_is_an_output_error(laboratory):
    for limit in (1, 400, 900, 2000):
        name = laboratory.fresh()
        ended = laboratory.start(name, largest_file=limit)
        assert ended.status == 8, (limit, ended.output)
        assert "File too large" in ended.output
        assert "Traceback" not in ended.output
        laboratory.check(name)
        laboratory.go_on(name)


def test_a_place_that_cannot_be_written_is_an_output_error(laboratory):
    (laboratory.root / "closed").mkdir(mode=0o555)
    as_another = {"user": NOBODY} if os.getuid() == 0 else {}
    ended = laboratory.start("closed/run", **as_another)
    assert ended.status == 8, ended.output
    assert "closed/run" in ended.output
    assert "output_dir" in ended.output


def test_an_input_that_vanished_is_named_and_may_come_back(laboratory):
    name = laboratory.fresh()
    assert laboratory.start(name, fault="kill", at=middle(laboratory)).status == -9
    shard = next((laboratory.root / "models/b").glob("model-00001*"))
    hidden = shard.rename(shard.with_name("elsewhere"))
    ended = laboratory.resume(name)
    assert ended.status == 5
    assert shard.name in ended.output
    hidden.rename(shard)
    laboratory.go_on(name)


def test_an_input_that_changed_is_said_and_nothing_of_the_old_is_mixed_in(laboratory):
    name = laboratory.fresh()
    assert laboratory.start(name, fault="kill", at=middle(laboratory)).status == -9
    shards = sorted((laboratory.root / "models/b").glob("model-*.safetensors"))
    before = {shard: (shard.read_bytes(), shard.stat().st_mtime_ns) for shard in shards}
    try:
        for shard in shards:
            twin = laboratory.root / "models/c" / shard.name
            shard.write_bytes(twin.read_bytes())
        ended = laboratory.resume(name)
        assert ended.status == 0, ended.output
        assert "have changed since" in ended.output
        merged = open_checkpoint(laboratory.root / name / "model")
        a, c = (open_checkpoint(laboratory.root / "models" / model) for model in "ac")
        for key in merged:
            expected = (a.tensor(key).double() + 2 * c.tensor(key).double()) / 3
            assert (merged.tensor(key).double() - expected).abs().max() < 1e-6
    finally:
        for shard, (content, time) in before.items():
            shard.write_bytes(content)
            os.utime(shard, ns=(time, time))


def test_leftovers_of_another_layout_do_not_get_into_the_artefact(laboratory):
    name = laboratory.fresh()
    assert laboratory.start(name, fault="kill", at=middle(laboratory)).status == -9
    config = laboratory.root / name / "config.yaml"
    config.write_text(config.read_text().replace("150B", "1GB"))
    assert laboratory.resume(name).status == 0
    names = set(contents(laboratory.root / name / "model"))
    assert names == {"README.md", "fusion.json", "mlp.json", "model.safetensors"}
