"""Names, headers, ties, artefacts, content hashes, revisions."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from fusionbench_core.errors import InputError, NotFound, Offline
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.source_checks.elsewhere import content, contents
from fusionbench_core.testing.source_checks.hub import MISSING, NAME, imitated_hub
from fusionbench_core.testing.source_checks.reads import counted_reads
from fusionbench_core.testing.source_checks.states import read_all, require_same
from fusionbench_core.testing.source_subject import SourceSubject

_SHARE = 0.1
"""Part of the tensor data that opening may read, e.g. scalars that say how to read the rest."""


@check("FS-101")
def names_stable(subject: SourceSubject) -> None:
    """Names are the same, in the same order, whenever the model is opened.

    Plans, files and journals of interrupted runs go by the order of the names.

    Fix: keep the order of the file; never go through a set; give each name once.
    """
    checkpoint = subject.fresh().open()
    names = checkpoint.keys()
    if not names:
        raise Violation("the model has no tensors")
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise Violation("names repeat", measured=repeated[:6])
    for what, again in (
        ("a second call of `keys()`", checkpoint.keys()),
        ("a second opening", subject.fresh().open().keys()),
    ):
        if tuple(again) != tuple(names):
            raise Violation(f"{what} gives other names, or another order", measured=again, bound=names)


@check("FS-102")
def headers_only(subject: SourceSubject) -> None:
    """Opening, names, shapes and dtypes read no tensor data, and are right.

    Pools of large models are planned and checked before a byte of their weights is read.

    Fix: read headers in `open()`; give `info(key)` from them, not from `tensor(key)`.
    """
    checkpoint = subject.fresh().open()
    infos = {name: checkpoint.info(name) for name in checkpoint}
    with counted_reads() as reads:
        checkpoint = subject.fresh().open()
        for name in checkpoint:
            checkpoint.info(name)
    total = sum(info.nbytes for info in infos.values())
    if reads.bytes > _SHARE * total:
        raise Violation(
            "`open()`, `keys()` and `info(key)` read tensor data",
            measured=f"{reads.bytes} bytes",
            bound=f"{int(_SHARE * total)} of {total} bytes",
        )
    for name, info in infos.items():
        tensor = checkpoint.tensor(name)
        if (tuple(tensor.shape), tensor.dtype) != (info.shape, info.dtype):
            found = type(info)(tuple(tensor.shape), tensor.dtype)
            raise Violation(f"`info({name!r})` is wrong", measured=info, bound=found)


@check("FS-105")
def ties_reported(subject: SourceSubject) -> None:
    """Names that share one tensor are reported as aliases of one of them.

    A tied weight that is merged twice costs twice, and a method that draws at random tears it apart.

    Fix: give `aliases`: each tied name -> the one name that holds the tensor.
    """
    import torch

    source = subject.fresh()
    checkpoint = source.open()
    aliases = dict(checkpoint.aliases)
    for alias, kept in aliases.items():
        if alias not in checkpoint or kept not in checkpoint or kept in aliases:
            raise Violation(f"alias {alias} -> {kept} leads to no tensor of its own")
        if not torch.equal(checkpoint.tensor(alias), checkpoint.tensor(kept)):
            raise Violation(f"{alias} is reported as tied to {kept}, and has other values")
    for group in _tied(source.skeleton()):
        present = [name for name in group if name in checkpoint]
        if len({aliases.get(name, name) for name in present}) > 1:
            raise Violation(
                f"the architecture ties {', '.join(present)}, and `aliases` does not say so",
                measured=aliases,
            )


def _tied(module) -> list[list[str]]:
    groups: dict[tuple, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if tensor.numel():
            groups.setdefault((tensor.data_ptr(), tensor.shape), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


@check("FS-106", level="full", requires=("FS-101", "FS-102", "FS-105"))
def artefact_reads_back(subject: SourceSubject) -> None:
    """Written as an artefact, in one file or in shards, the model reads back the same.

    An adapter over its base and the merged model, one file and many, are one model.

    Fix: list what the architecture needs in `assets()`; give the source of a merged, possibly sharded
    model in `for_artefact()`.
    """
    source = subject.fresh()
    checkpoint = source.open()
    state = read_all(checkpoint)
    try:
        source.build(checkpoint)
    except Exception as error:
        raise Inapplicable("no module of it can be built, whatever it is read from") from error
    largest = sum(tensor.nbytes for tensor in state.values()) // 2
    for words, limit in (("one file", 2**62), ("shards", largest)):
        with tempfile.TemporaryDirectory(prefix="fb-artefact-") as scratch:
            directory = Path(scratch)
            _write(checkpoint, directory, limit)
            for asset in source.assets():
                shutil.copyfile(asset, directory / asset.name)
            try:
                again = source.for_artefact(directory)
                found = read_all(again.open())
                again.build(again.open())
            except Exception as error:
                raise Violation(
                    f"an artefact in {words} cannot be read: {type(error).__name__}: {error}"
                ) from error
            require_same(found, state, f"an artefact in {words} reads back otherwise")


def _write(checkpoint, directory: Path, limit: int) -> None:
    from fusionbench_core.checkpoints.writer import SafetensorsWriter

    layout = [(name, checkpoint.info(name)) for name in checkpoint if name not in checkpoint.aliases]
    writer = SafetensorsWriter(directory, layout, aliases=checkpoint.aliases, max_shard_size=limit)
    for name, _ in layout:
        writer.write(name, 0, checkpoint.tensor(name))
    writer.finish()


@check("FS-108", level="full", requires=("FS-101",))
def hash_stable(subject: SourceSubject) -> None:
    """Names, their order and the content hash are the same in another process and at another place.

    Interrupted runs, statistics and results of evaluations are found again by the content hash.

    Fix: do not let paths, times, `hash()` or the order of a set into names or `fingerprint()`.
    """
    from fusionbench_core.testing import fresh

    here = content(subject.fresh().open())
    there, anew = fresh.run(contents, subject.record, subject.parameters, hashseed=1)
    for words, found in (
        ("in another process", there),
        ("where `example` writes it in another process", anew),
    ):
        if found[0] != here[0]:
            raise Violation(f"the names have another order {words}", measured=found[0], bound=here[0])
        if found[1] != here[1]:
            raise Violation(f"the content hash is another one {words}", measured=found[1], bound=here[1])


@check("FS-109")
def revision_pinned(subject: SourceSubject) -> None:
    """A revision is respected, and a model of the hub says which commit it is.

    A branch moves: a report that names it, and not the commit, cannot be reproduced.

    Fix: pass `revision` on to the hub; give the commit of the snapshot that is read in `commit()`, and
    None for local files.
    """
    if "revision" not in subject.cls.model_fields:
        raise Inapplicable("it takes no revision")
    source = subject.fresh()
    if source.commit() is not None:
        raise Violation("local files have no commit", measured=source.commit(), bound=None)
    model = Path(source.path)
    if not model.is_dir():
        raise Inapplicable("its example is no directory")
    with imitated_hub(model) as hub:
        main = subject.fresh(path=NAME)
        try:
            first = main.open().fingerprint()
        except (NotFound, Offline):
            raise Inapplicable("it reads no hub whose cache can be imitated") from None
        if main.commit() != hub.main:
            raise Violation(
                "a model of the hub does not say which commit it is", measured=main.commit(), bound=hub.main
            )
        for words, parameters in (
            ("`revision`", {"path": NAME, "revision": hub.other}),
            ("a revision behind `@`", {"path": f"{NAME}@{hub.other}"}),
        ):
            other = subject.fresh(**parameters)
            if other.open().fingerprint() == first or other.commit() != hub.other:
                raise Violation(f"{words} is not respected", measured=other.commit(), bound=hub.other)


@check("FS-110")
def offline_explained(subject: SourceSubject) -> None:
    """Without a network, a model that is not here is an error that says what to download.

    Clusters have no network on their nodes; a stack of connection errors helps nobody there.

    Fix: turn what the hub's library raises into `Offline`, with the command to run where there is a
    network as `fix`; touch no network while `HF_HUB_OFFLINE=1`.
    """
    with imitated_hub() as hub:
        try:
            subject.fresh(path=MISSING).open()
        except InputError as error:
            _require_advice(subject, error)
        except Exception as error:
            raise Violation(
                f"a model that is not in the cache raises {type(error).__name__}, no InputError: {error}"
            ) from error
        else:
            raise Violation(f"{MISSING!r} can be opened, and does not exist")
    if hub.attempts:
        raise Violation("it reaches for the network where that is switched off", measured=hub.attempts[:3])


def _require_advice(subject: SourceSubject, error: InputError) -> None:
    if "revision" in subject.cls.model_fields and not isinstance(error, Offline):
        raise Violation("the error is not `Offline`", measured=type(error).__name__, bound="Offline")
    if MISSING not in str(error) or not error.fix:
        raise Violation("the error does not name the model, or says not what to do", measured=error)
    if isinstance(error, Offline) and MISSING not in error.fix:
        raise Violation("the error does not say what to download", measured=error.fix, bound=MISSING)
