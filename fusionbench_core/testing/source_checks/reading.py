"""Tensors, modules, threads, file handles, corrupt files."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusionbench_core.errors import FusionError, InputError
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.source_checks.states import read_all, require_same
from fusionbench_core.testing.source_subject import SourceSubject
from fusionbench_core.testing.tolerance import assert_close, same_bits

WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".npz", ".npy", ".gguf"}
"""Endings of files that hold tensors."""

_THREADS, _ROUNDS = 8, 2


@check("FS-103")
def equals_eager_load(subject: SourceSubject) -> None:
    """What is read lazily is what the format's own library loads.

    An offset, a transposition or a factor that is wrong gives a model that works, and badly.

    Fix: compare with `example_state`, which gives what the library itself loads from the example.
    """
    checkpoint = subject.fresh().open()
    wanted = subject.cls.example_state(subject.directory)
    if wanted is None:
        raise Inapplicable("its author gives no `example_state` to compare with")
    found = read_all(checkpoint)
    if found.keys() != wanted.keys():
        differing = sorted(found.keys() ^ wanted.keys())
        raise Violation(f"names differ from the library's: {differing[:6]}", measured=len(found))
    for name, tensor in found.items():
        if tensor.dtype != wanted[name].dtype:
            raise Violation(f"{name} has another dtype", measured=tensor.dtype, bound=wanted[name].dtype)
    assert_close(found, wanted, [wanted], "values differ from what the format's library loads")


@check("FS-104")
def slices_equal(subject: SourceSubject) -> None:
    """A slice is what the whole tensor has there.

    Large tensors are fused in slices, on several threads.

    Fix: `chunk(key, start, stop)` is `tensor(key).reshape(-1)[start:stop]`, offsets in entries.
    """
    checkpoint = subject.fresh().open()
    for name in checkpoint:
        whole = checkpoint.tensor(name).reshape(-1)
        count = whole.numel()
        for start, stop in ((0, count), (0, 1), (count // 3, 2 * count // 3), (count - 1, count), (0, 0)):
            start = max(start, 0)
            if same_bits({name: checkpoint.chunk(name, start, stop)}, {name: whole[start:stop]}):
                raise Violation(f"entries {start} to {stop} of {name} differ from the whole tensor's")


@check("FS-107")
def module_loads(subject: SourceSubject) -> None:
    """The live module has the names of the lazy view, and its values, in fp32.

    Tasks are measured on the module, and files are written from the view: they must be one model.

    Fix: let `open()` and `skeleton().state_dict()` have the same names, persistent buffers included.
    """
    import torch

    source = subject.fresh()
    checkpoint = source.open()
    names = set(source.skeleton().state_dict())
    if names != set(checkpoint):
        lost, extra = sorted(names - set(checkpoint)), sorted(set(checkpoint) - names)
        raise Violation(f"the module and the view differ: {lost[:6]} missing, {extra[:6]} extra")
    module = source.build(checkpoint)
    wanted = {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in read_all(checkpoint).items()
    }
    require_same(dict(module.state_dict()), wanted, "the module does not hold the model's weights")
    if module.training or any(parameter.requires_grad for parameter in module.parameters()):
        raise Violation("the module is in training mode, or records gradients")
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.zero_()
    require_same(dict(source.build(checkpoint).state_dict()), wanted, "two modules share their weights")


@check("FS-111", requires=("FS-107",))
def handles_closed(subject: SourceSubject) -> None:
    """When nobody uses a model any more, its files are closed.

    A run over a hundred models must not end in "too many open files".

    Fix: keep files and maps in the checkpoint, not in a module-level cache; close what you read whole.
    """
    places = [Path("/proc/self/fd"), Path("/proc/self/maps")]
    if not all(place.exists() for place in places):
        raise Inapplicable("this system does not list the files of a process")
    directory = tempfile.mkdtemp(prefix="fb-handles-", dir=subject.directory)
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", ResourceWarning)
        source = subject.source(Path(directory))
        checkpoint = source.open()
        for name in checkpoint:
            checkpoint.tensor(name)
        source.build(checkpoint)
        del source, checkpoint
        gc.collect()
    left = [file for file in _open_files() if file.startswith(directory)]
    if left:
        raise Violation(
            "files stay open after the model is gone", measured=sorted(set(left))[:4], bound="none"
        )
    unclosed = [str(each.message) for each in raised if issubclass(each.category, ResourceWarning)]
    if any(directory in message for message in unclosed):
        raise Violation("files are left for Python to close", measured=unclosed[:2])


def _open_files() -> Iterator[str]:
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
    for line in Path("/proc/self/maps").read_text().splitlines():
        yield line.partition("/")[1] + line.partition("/")[2]


@check("FS-112", level="full", requires=("FS-104",))
def thread_safe(subject: SourceSubject) -> None:
    """Threads that read at the same time read what one thread reads.

    The engine reads with all processors at once.

    Fix: share no position in a file and no scratch tensor between calls; map files, or use a lock.
    """
    wanted = read_all(subject.fresh().open())
    names = list(wanted)
    checkpoint = subject.fresh().open()
    faults: list[str] = []
    start = threading.Barrier(_THREADS)

    def read(number: int) -> None:
        start.wait()
        sys.settrace(_give_way)
        try:
            for step in range(_ROUNDS * len(names)):
                name = names[(step * (1 + 2 * number) + number) % len(names)]
                half = wanted[name].numel() // 2
                whole, part = checkpoint.tensor(name), checkpoint.chunk(name, 0, half)
                if same_bits({name: whole}, {name: wanted[name]}):
                    faults.append(name)
                if same_bits({name: part}, {name: wanted[name].reshape(-1)[:half]}):
                    faults.append(name)
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")
        finally:
            sys.settrace(None)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise Violation(f"{_THREADS} threads read something else than one", measured=sorted(set(faults))[:4])


def _give_way(frame: Any, event: str, argument: Any) -> Any:
    """A trace function that lets other threads run after every line."""
    time.sleep(0)
    return _give_way


@check("FS-113")
def corrupt_files(subject: SourceSubject) -> None:
    """A truncated or corrupt file is an error that says so, whatever is read of it.

    Downloads break off and disks fill up; half a model must not pass for one.

    Fix: check sizes and headers when opening, and raise `CorruptFile` with the file's name.
    """
    with tempfile.TemporaryDirectory(prefix="fb-corrupt-") as scratch:
        directory = Path(scratch).resolve()
        source = subject.source(directory)
        read_all(source.open())
        files = [file for file in sorted(directory.rglob("*")) if file.is_file()]
        for file in files:
            if file.suffix in WEIGHTS or file.suffix == ".json":
                _damage(subject, file, source.model_dump())


def _damage(subject: SourceSubject, file: Path, parameters: dict) -> None:
    sound = file.read_bytes()
    damages = {
        "cut to half": sound[: len(sound) // 2],
        "emptied": b"",
        "overwritten at its start": b"\xff" * min(64, len(sound)) + sound[64:],
    }
    for words, content in damages.items():
        _replace(file, content)
        _require_error(subject, file, words, parameters)
    _replace(file, sound)


def _replace(file: Path, content: bytes) -> None:
    # Under the same name, but another file: who still maps the old one keeps it.
    fresh = file.with_name("replacement.part")
    fresh.write_bytes(content)
    os.replace(fresh, file)


def _require_error(subject: SourceSubject, file: Path, words: str, parameters: dict) -> None:
    weights = file.suffix in WEIGHTS
    try:
        read_all(subject.cls.model_validate(parameters).open())
    except FusionError as error:
        if weights and not isinstance(error, InputError):
            raise Violation(
                f"{file.name}, {words}, is taken for another fault: {error}", bound="CorruptFile"
            ) from error
        return
    except Exception as error:
        raise Violation(
            f"{file.name}, {words}, raises {type(error).__name__}: {error}", bound="CorruptFile"
        ) from error
    if weights:
        raise Violation(f"{file.name}, {words}, is read without an error", bound="CorruptFile")
