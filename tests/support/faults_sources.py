"""A sound model source, and one for each fault that the conformance kit must find."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import torch

import fusionbench_core as fb
from fusionbench_core.checkpoints.checkpoint import Checkpoint
from fusionbench_core.errors import Offline
from fusionbench_core.testing.zoo import ARCHITECTURES, case, state_of

NOTE, WEIGHTS = "kind.json", "model.safetensors"
KEPT: list = []
"""What careless sources keep for ever."""
MODULES: dict = {}


def record(name: str) -> fb.SourceRecord:
    """The record of a class of this module."""
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return fb.SourceRecord(name=snake, target=f"faults_sources:{name}", summary="for tests")


def write(directory: Path, state: dict, tied: dict[str, str]) -> None:
    kept = {name: tensor for name, tensor in state.items() if name not in tied}
    fb.write_safetensors(directory / WEIGHTS, kept, aliases=tied)


class Sound(fb.ModelSource):
    """Reads a language model of the zoo: a local directory, or a snapshot of the hub."""

    record = record("Sound")

    revision: str | None = None

    @classmethod
    def example(cls, directory):
        model = case("tied_lm").models["alpha"]
        write(directory, state_of(model), {"head.weight": "embed.weight"})
        (directory / NOTE).write_text(json.dumps({"kind": "tied_lm"}))
        return {"path": str(directory)}

    @classmethod
    def example_state(cls, directory):
        return state_of(case("tied_lm").models["alpha"])

    @property
    def directory(self) -> Path:
        local = fb.resolve_path(self.path)
        return local or self.snapshot()

    def snapshot(self) -> Path:
        from huggingface_hub import snapshot_download

        name, _, written = self.path.partition("@")
        try:
            return Path(snapshot_download(name, revision=self.revision or written or None))
        except OSError as error:
            raise Offline(f"{name} is not here", fix=f"hf download {name}") from error

    def commit(self):
        return self.directory.name if self.directory.parent.name == "snapshots" else None

    def open(self):
        return fb.open_checkpoint(self.directory)

    def skeleton(self):
        if not (self.directory / NOTE).is_file():
            raise fb.NotFound(f"no {NOTE}", fix="copy it")
        with torch.random.fork_rng(devices=[]):
            return ARCHITECTURES["tied_lm"]().eval()

    def assets(self):
        return [self.directory / NOTE]


class View(Checkpoint):
    """Another checkpoint, as it is; faults change one thing of it."""

    def __init__(self, inner: Checkpoint, directory: Path) -> None:
        self.inner, self.directory, self.location = inner, directory, inner.location

    def keys(self):
        return self.inner.keys()

    def info(self, key):
        return self.inner.info(key)

    def tensor(self, key):
        return self.inner.tensor(key)

    def chunk(self, key, start, stop):
        return self.inner.chunk(key, start, stop)

    @property
    def aliases(self):
        return self.inner.aliases

    def identity(self):
        return self.inner.identity()


class Faulty(Sound):
    """Opens as a view of the class's own."""

    view: ClassVar[type[View]] = View

    def open(self):
        return type(self).view(super().open(), self.directory)


class OtherOrderEachTime(Faulty):
    record = record("OtherOrderEachTime")

    def open(self):
        KEPT.append("opened once more")
        turn = len(KEPT)

        class Turned(View):
            def keys(self):
                names = self.inner.keys()
                return names[turn % len(names) :] + names[: turn % len(names)]

        return Turned(super().open(), self.directory)


class RepeatedName(Faulty):
    record = record("RepeatedName")

    class view(View):
        def keys(self):
            return (*self.inner.keys(), self.inner.keys()[0])


class ReadsForShapes(Faulty):
    record = record("ReadsForShapes")

    class view(View):
        def info(self, key):
            tensor = self.tensor(key)
            return fb.TensorInfo(tuple(tensor.shape), tensor.dtype)


class LoadsEverything(Sound):
    record = record("LoadsEverything")

    def open(self):
        from safetensors.torch import load_file

        inner, state = super().open(), {}
        for file in self.directory.glob("*.safetensors"):
            state |= load_file(file)
        state |= {alias: state[kept] for alias, kept in inner.aliases.items()}
        return fb.StateDictCheckpoint({name: state[name] for name in inner})


class WrongDtype(Faulty):
    record = record("WrongDtype")

    class view(View):
        def info(self, key):
            info = self.inner.info(key)
            return fb.TensorInfo(info.shape, torch.int32) if key == "positions" else info


class ForgotScaling(Sound):
    """An adapter over its base, whose factor `alpha / rank` was forgotten."""

    record = record("ForgotScaling")
    factor: ClassVar[float] = 1.0

    @classmethod
    def example(cls, directory):
        parameters = super().example(directory)
        delta = case("tied_lm").base.block.weight.detach().clone()
        fb.write_safetensors(directory / "adapter.sft", {"block.weight": delta})
        return parameters

    @classmethod
    def example_state(cls, directory):
        state = super().example_state(directory)
        delta = case("tied_lm").base.block.weight.detach()
        return {**state, "block.weight": state["block.weight"] + 0.5 * delta}

    def open(self):
        delta = fb.open_checkpoint(self.directory / "adapter.sft")
        factor = self.factor

        class Adapted(View):
            def tensor(self, key):
                tensor = self.inner.tensor(key)
                return tensor + factor * delta.tensor(key) if key == "block.weight" else tensor

            def chunk(self, key, start, stop):
                return self.tensor(key).reshape(-1)[start:stop]

        return Adapted(super().open(), self.directory)

    def for_artefact(self, directory):
        return Sound(path=str(directory))


class SoundAdapter(ForgotScaling):
    record = record("SoundAdapter")
    factor: ClassVar[float] = 0.5


class SlicesRows(Faulty):
    record = record("SlicesRows")

    class view(View):
        def chunk(self, key, start, stop):
            tensor = self.inner.tensor(key)
            return tensor[start:stop].reshape(-1) if tensor.ndim else tensor.reshape(-1)[start:stop]


class IgnoresTies(Faulty):
    record = record("IgnoresTies")

    class view(View):
        aliases = {}


class FalseTie(Faulty):
    record = record("FalseTie")

    class view(View):
        @property
        def aliases(self):
            return {**self.inner.aliases, "one": "scale"}


class ForgetsAssets(Sound):
    record = record("ForgetsAssets")

    def assets(self):
        return ()


class FirstShardOnly(Sound):
    record = record("FirstShardOnly")

    def open(self):
        return fb.open_checkpoint(sorted(self.directory.glob("*.safetensors"))[0])


class LosesBuffers(Faulty):
    record = record("LosesBuffers")

    class view(View):
        def keys(self):
            return tuple(name for name in self.inner if name not in ("positions", "mask"))

    @classmethod
    def example_state(cls, directory):
        state = super().example_state(directory)
        return {name: tensor for name, tensor in state.items() if name not in ("positions", "mask")}


class OneModuleForAll(Sound):
    record = record("OneModuleForAll")

    def build(self, checkpoint):
        if self.path not in MODULES:
            MODULES[self.path] = super().build(checkpoint)
        return MODULES[self.path]


class HashesItsPath(Faulty):
    record = record("HashesItsPath")

    class view(View):
        def fingerprint(self):
            return f"{super().fingerprint()} {self.directory}"


class OrderOfASet(Faulty):
    record = record("OrderOfASet")

    class view(View):
        def keys(self):
            return tuple(set(self.inner.keys()))


class ForgetsCommit(Sound):
    record = record("ForgetsCommit")

    def commit(self):
        return None


class IgnoresRevision(Sound):
    record = record("IgnoresRevision")

    def snapshot(self):
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.path.partition("@")[0]))
        except OSError as error:
            raise Offline(f"{self.path} is not here", fix=f"hf download {self.path}") from error


class RawErrorOffline(Sound):
    record = record("RawErrorOffline")

    def snapshot(self):
        from huggingface_hub import snapshot_download

        name, _, written = self.path.partition("@")
        return Path(snapshot_download(name, revision=self.revision or written or None))


class NoAdviceOffline(RawErrorOffline):
    record = record("NoAdviceOffline")

    def snapshot(self):
        try:
            return super().snapshot()
        except OSError as error:
            raise Offline(f"{self.path} is not here", fix="check the network") from error


class ReachesForTheNetwork(Sound):
    record = record("ReachesForTheNetwork")

    def snapshot(self):
        import socket

        if "not-in-the-cache" in self.path:
            with suppress(OSError):
                socket.create_connection(("hub.invalid", 443))
        return super().snapshot()


class KeepsFilesOpen(Sound):
    record = record("KeepsFilesOpen")

    def open(self):
        checkpoint = super().open()
        KEPT.append(checkpoint)
        return checkpoint


class SharesAPosition(Faulty):
    """One file for all threads: another thread moves the position between seek and read."""

    record = record("SharesAPosition")

    class view(View):
        def __init__(self, inner, directory):
            super().__init__(inner, directory)
            self.wanted = ""

        def tensor(self, key):
            self.wanted = self.aliases.get(key, key)
            for _ in range(50):
                info = self.inner.info(key)
            return self.inner.tensor(self.wanted).view(info.shape)

        def chunk(self, key, start, stop):
            return self.inner.chunk(key, start, stop)


class FillsUpWithZeros(Sound):
    """Takes what is left of a broken file, and zeros for the rest."""

    record = record("FillsUpWithZeros")

    def open(self):
        try:
            return super().open()
        except fb.CorruptFile:
            whole = self.example_state(self.directory)
            return fb.StateDictCheckpoint({name: torch.zeros_like(whole[name]) for name in whole})


class RawErrorOfTheParser(Sound):
    record = record("RawErrorOfTheParser")

    def open(self):
        from safetensors import safe_open

        for file in self.directory.glob("*.safetensors"):
            with safe_open(file, "pt"):
                pass
        return super().open()
