"""A process without network, with a home of its own, and a picture of its global state."""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class NetworkBlocked(OSError):
    """Something reached for the network while it was blocked."""


@contextmanager
def no_network() -> Iterator[list[str]]:
    """Block the network in this process; the list holds what was reached for, also where it was caught."""
    attempts: list[str] = []

    def refuse(*arguments: Any, **_: Any) -> Any:
        attempts.append(", ".join(str(a) for a in arguments if not isinstance(a, socket.socket)))
        raise NetworkBlocked(f"the network is blocked during checks; wanted: {attempts[-1]}")

    names = ("connect", "connect_ex", "sendto")
    kept = {name: getattr(socket.socket, name) for name in names}
    looking = {name: getattr(socket, name) for name in ("getaddrinfo", "create_connection", "gethostbyname")}
    try:
        for name in names:
            setattr(socket.socket, name, _unless_local(kept[name], refuse))
        for name in looking:
            setattr(socket, name, refuse)
        yield attempts
    finally:
        for name, function in kept.items():
            setattr(socket.socket, name, function)
        for name, function in looking.items():
            setattr(socket, name, function)


def _unless_local(function: Any, refuse: Any) -> Any:
    def guarded(self: socket.socket, *arguments: Any) -> Any:
        # Sockets in the file system are how processes of one machine talk.
        if self.family == getattr(socket, "AF_UNIX", None):
            return function(self, *arguments)
        return refuse(self, *arguments)

    return guarded


def environment(home: Path) -> dict[str, str]:
    """The environment of a process that checks a plugin: its homes, caches and offline switches."""
    kept = {name: value for name, value in os.environ.items() if not secret(name)}
    return {
        **kept,
        "HOME": str(home),
        "USERPROFILE": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "TMPDIR": str(home / "tmp"),
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Hashes differ from those of the fresh processes it starts, and not from one check to the next.
        "PYTHONHASHSEED": "2",
    }


def secret(name: str) -> bool:
    """Whether a variable of that name may hold what nobody else should know."""
    return any(word in name.upper() for word in ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "CREDENTIAL"))


def global_state() -> dict[str, Any]:
    """Everything that code may not change behind others' backs; comparable with `==`.

    Heavy packages are looked at only if they are imported already.
    """
    state: dict[str, Any] = {
        "the random state of `random`": random.getstate(),
        "the environment": dict(os.environ),
        "the working directory": os.getcwd(),
        "`sys.path`": list(sys.path),
        "the warning filters": list(warnings.filters),
        "the root logger": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "the locale of numbers": _locale(),
        "the standard streams": (sys.stdout, sys.stderr),
    }
    if (numpy := sys.modules.get("numpy")) is not None:
        kind, keys, *rest = numpy.random.get_state()
        state["the random state of numpy"] = (kind, keys.tobytes(), *rest)
        state["numpy's error settings"] = numpy.geterr()
    if (torch := sys.modules.get("torch")) is not None:
        state |= _torch_state(torch)
    if (matplotlib := sys.modules.get("matplotlib")) is not None:
        state["matplotlib's settings"] = dict(matplotlib.rcParams)
    return state


def _torch_state(torch: Any) -> dict[str, Any]:
    return {
        "the random state of torch": bytes(torch.random.get_rng_state().tolist()),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's default device": str(torch.get_default_device()),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "torch's precision of matrix products": torch.get_float32_matmul_precision(),
        "torch's number of threads": torch.get_num_threads(),
        "whether cudnn benchmarks": torch.backends.cudnn.benchmark,
        "torch's anomaly mode": torch.is_anomaly_enabled(),
    }


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two pictures, in words; packages imported meanwhile do not count."""
    return [name for name, value in before.items() if name in after and after[name] != value]


def _locale() -> Any:
    import locale

    return locale.setlocale(locale.LC_NUMERIC)


@contextmanager
def fixed_global_seed(number: int = 0) -> Iterator[None]:
    """Seed all global generators; what they were comes back at the end."""
    import torch

    numpy: Any = sys.modules.get("numpy")
    python, arrays = random.getstate(), numpy.random.get_state() if numpy else None
    with torch.random.fork_rng():
        random.seed(number)
        torch.manual_seed(number)
        if numpy:
            numpy.random.seed(number)
        try:
            yield
        finally:
            random.setstate(python)
            if numpy:
                numpy.random.set_state(arrays)


@contextmanager
def own_cache() -> Iterator[Path]:
    """Give FusionBench an empty cache in this process, so that nothing comes from an earlier run."""
    name = "FB_CACHE_HOME"
    kept = os.environ.get(name)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ[name] = scratch
        try:
            yield Path(scratch)
        finally:
            if kept is None:
                del os.environ[name]
            else:
                os.environ[name] = kept


def files_below(directory: Path) -> dict[str, tuple[int, int]]:
    """Path -> (size, modification time) of every file below a directory."""
    found = {}
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            found[str(path)] = (status.st_size, status.st_mtime_ns)
    return found
