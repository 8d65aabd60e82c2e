"""No network, no output, no traces in global state."""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from fusionbench_core.testing.check import Violation, check
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.sandbox import changed, files_below, global_state, no_network


@check("FM-601")
def no_network_used(subject: MethodSubject) -> None:
    """It reaches for no network, not even where it could do without.

    Clusters have none, and a result that depends on what a server says today cannot be repeated.

    Fix: let model sources and tasks fetch what is needed; a method is a function of its inputs.
    """
    with no_network() as attempts:
        try:
            subject.fuse(subject.case())
        except Exception:
            if not attempts:
                raise
    if attempts:
        raise Violation("it reaches for the network", measured=attempts[0], bound="no network")


@check("FM-602")
def writes_nothing(subject: MethodSubject) -> None:
    """It writes no files: not to the working directory, the home, or a temporary directory.

    The run directory and the cache are the core's to write; anything else fills disks and collides.

    Fix: return what should be kept, in `Fused.weights(…, details=…)`; the core writes it.
    """
    with tempfile.TemporaryDirectory(prefix="fb-check-") as scratch, _at_home(Path(scratch)) as places:
        with _opened_for_writing() as opened:
            subject.fuse(subject.case())
        found = [file for place in places for file in files_below(place)]
        root = str(Path(scratch).resolve())
        found += [file for file in opened if not file.startswith((root, scratch, "/dev/", "/proc/"))]
    if found:
        raise Violation("it writes files", measured=sorted(found)[0], bound="none")


@check("FM-603")
def prints_nothing(subject: MethodSubject) -> None:
    """It prints nothing, and logs only below the logger `fusionbench`.

    Output of a method ends up between the progress bars, and in the JSON that `fb run --json` prints.

    Fix: `job.progress(done, total, message)` for what users should see, and
    `logging.getLogger("fusionbench.…")` for the rest.
    """
    records: list[logging.LogRecord] = []
    with _listening(records), _captured() as printed:
        subject.fuse(subject.case())
    if printed:
        raise Violation("it prints", measured=repr(printed[0][:200]), bound="no output")
    folder = _folder(subject)
    for record in records:
        if record.pathname.startswith(folder) and record.name.partition(".")[0] != "fusionbench":
            raise Violation(
                f"it logs to {record.name!r}",
                measured=record.getMessage(),
                bound="loggers below 'fusionbench'",
            )


@check("FM-604")
def global_state_kept(subject: MethodSubject) -> None:
    """It changes no global state: environment, directories, filters, torch's settings.

    What runs after it in the same process would give other results because of it.

    Fix: pass settings as arguments, or set them back in a `finally`.
    """
    before, after = subject.first_traces
    differing = changed(before, after)
    # Random numbers have a check of their own.
    suspects = [name for name in differing if "random state" not in name]
    if not suspects:
        return
    # What an import changes is changed once; what the method changes, it changes again.
    _restore(before, after, suspects)
    again = global_state()
    subject.fuse(subject.case())
    after = global_state()
    found = [name for name in changed(again, after) if name in suspects]
    _restore(again, after, found)
    if found:
        raise Violation(
            f"it changes {', '.join(found)}", measured=_difference(again, after, found[0]), bound="as before"
        )


@check("FM-605")
def warns_of_nothing(subject: MethodSubject) -> None:
    """It raises no warnings in normal use.

    Users learn to overlook warnings that mean nothing, and then those that do.

    Fix: mend what is warned of. Where something is wrong with the input, raise a FusionError.
    """
    folder = _folder(subject)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        subject.fuse(subject.case())
    ours = [warning for warning in caught if _matters(warning, folder)]
    if ours:
        first = ours[0]
        raise Violation(
            f"it warns: {first.category.__name__}: {first.message}",
            measured=f"{first.filename}:{first.lineno}",
            bound="no warnings",
        )


_SILENT = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)
"""What libraries tell the programmers of those who call them; counts where the method is the caller."""

_HOMES = (
    "HOME",
    "USERPROFILE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "HF_HOME",
    "TORCH_HOME",
)


def _matters(warning: warnings.WarningMessage, folder: str) -> bool:
    return warning.filename.startswith(folder) or not issubclass(warning.category, _SILENT)


def _folder(subject: MethodSubject) -> str:
    """Where the method's package is; its file, if it is in none."""
    package = sys.modules.get(subject.cls.__module__.partition(".")[0])
    places = list(getattr(package, "__path__", ()))
    return places[0] if places else subject.source_file


@contextmanager
def _at_home(scratch: Path) -> Iterator[list[Path]]:
    """Another home, working directory and temporary directory; gives those that must stay empty."""
    places = [scratch / name for name in ("home", "work", "tmp")]
    for place in (*places, scratch / "cache"):
        place.mkdir()
    home, work, temporary = places
    kept, directory, known = dict(os.environ), os.getcwd(), tempfile.tempdir
    os.environ.update(dict.fromkeys(_HOMES, str(home)))
    os.environ.update(TMPDIR=str(temporary), FB_CACHE_HOME=str(scratch / "cache"))
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    tempfile.tempdir = str(temporary)
    os.chdir(work)
    try:
        yield places
    finally:
        os.chdir(directory)
        sys.dont_write_bytecode, tempfile.tempdir = bytecode, known
        _set_environment(kept)


_listeners: list[list[str]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _listeners:
        return
    path, mode, flags = arguments
    writes = any(letter in (mode or "") for letter in "wax+") or (
        mode is None and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
    if writes and isinstance(path, (str, bytes, os.PathLike)):
        _listeners[-1].append(os.path.abspath(os.fsdecode(path)))


@contextmanager
def _opened_for_writing() -> Iterator[list[str]]:
    """The files that Python code opens for writing meanwhile, wherever they are."""
    if not _hearing:
        # Hooks stay for the life of the process; this one does nothing while nobody listens.
        sys.addaudithook(_hear)
        _hearing.append(True)
    _listeners.append([])
    try:
        yield _listeners[-1]
    finally:
        _listeners.pop()


_hearing: list[bool] = []


@contextmanager
def _captured() -> Iterator[list[str]]:
    """What is printed meanwhile, by Python and by anything below it; filled at the end."""
    printed: list[str] = []
    above = io.StringIO()
    with tempfile.TemporaryFile() as below:
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [os.dup(1), os.dup(2)]
        try:
            os.dup2(below.fileno(), 1)
            os.dup2(below.fileno(), 2)
            with redirect_stdout(above), redirect_stderr(above), warnings.catch_warnings():
                # Warnings have a check of their own.
                warnings.simplefilter("ignore")
                yield printed
        finally:
            for descriptor, original in enumerate(kept, 1):
                os.dup2(original, descriptor)
                os.close(original)
            below.seek(0)
            text = above.getvalue() + below.read().decode(errors="replace")
            printed.extend([text] if text.strip() else [])


@contextmanager
def _listening(records: list[logging.LogRecord]) -> Iterator[None]:
    """Keep what is logged meanwhile; nothing of it is shown."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    listener, root = Listener(), logging.getLogger()
    kept, level = list(root.handlers), root.level
    root.handlers[:] = [listener]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers[:] = kept
        root.setLevel(level)


def _restore(before: Mapping[str, Any], after: Mapping[str, Any], names: list[str]) -> None:
    """Set back these parts of a picture of the global state, as far as that can be done."""
    import torch

    def environment(wanted: dict[str, str]) -> None:
        for key in {*wanted, *after["the environment"]}:
            if wanted.get(key) != after["the environment"].get(key):
                os.environ.pop(key, None)
                os.environ.update({key: wanted[key]} if key in wanted else {})

    def path(wanted: list[str]) -> None:
        sys.path[:] = wanted

    def filters(wanted: list[Any]) -> None:
        warnings.filters[:] = wanted  # type: ignore[index]

    def benchmarks(wanted: bool) -> None:
        torch.backends.cudnn.benchmark = wanted

    def streams(wanted: tuple[Any, Any]) -> None:
        sys.stdout, sys.stderr = wanted

    def logger(wanted: tuple[int, list[Any], int]) -> None:
        level, logging.root.handlers[:], logging.root.manager.disable = wanted
        logging.root.setLevel(level)

    setters: dict[str, Callable[[Any], Any]] = {
        "the environment": environment,
        "the working directory": os.chdir,
        "`sys.path`": path,
        "the warning filters": filters,
        "the standard streams": streams,
        "the root logger": logger,
        "torch's default dtype": torch.set_default_dtype,
        "torch's default device": torch.set_default_device,
        "whether gradients are recorded": torch.set_grad_enabled,
        "torch's deterministic mode": torch.use_deterministic_algorithms,
        "torch's precision of matrix products": torch.set_float32_matmul_precision,
        "torch's number of threads": torch.set_num_threads,
        "whether cudnn benchmarks": benchmarks,
        "torch's anomaly mode": torch.autograd.set_detect_anomaly,
    }
    for name in names:
        if name in setters:
            setters[name](before[name])


def _set_environment(wanted: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    os.environ.update(wanted)


def _difference(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> str:
    old, new = before[name], after[name]
    if isinstance(old, dict) and isinstance(new, dict):
        return ", ".join(sorted(key for key in {*old, *new} if old.get(key) != new.get(key)))
    return f"{new!r:.200}"
