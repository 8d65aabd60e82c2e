"""The same bits, whatever the seed should not decide."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench_core.records import MethodRecord
from fusionbench_core.testing.check import Inapplicable, Violation, check
from fusionbench_core.testing.method_subject import MethodSubject
from fusionbench_core.testing.picture import (
    OUTPUTS,
    TRAINED,
    Picture,
    assert_alike,
    assert_same,
    behaviour,
    isolated,
    picture,
    picture_of,
)
from fusionbench_core.testing.sandbox import changed, fixed_global_seed, global_state, own_cache
from fusionbench_core.testing.subjects import subject_of
from fusionbench_core.testing.tolerance import assert_close, same_bits

if TYPE_CHECKING:
    from fusionbench_core.testing.zoo import Case


_TWO_SEEDS = "fuse(method, models, base, seed=0), fuse(method, models, base, seed=1)"


@check("FM-301")
def same_seed(subject: MethodSubject) -> None:
    """The same seed gives the same bits.

    A result that nobody can make again can be neither compared nor repaired.

    Fix: draw random numbers from `group.uniform` or `job.generator`, never from the clock or the system;
    keep nothing on the object or the module between two runs.
    """
    first, second = subject.pictured, isolated(subject, subject.case())
    assert_same(first, second, "fusing twice with the same seed gives two results")


@check("FM-302", requires=("FM-301",))
def seed_matters_as_declared(subject: MethodSubject) -> None:
    """Another seed gives another result if, and only if, the method is declared random.

    The declaration says whether a result needs a seed to be made again, and several of them to be judged.

    Fix: set `random` in the capabilities to what holds, and draw random numbers from `group.uniform` or
    `job.generator`, which know the run's seed.
    """
    case = subject.case()
    first, second = subject.pictured, isolated(subject, case, seed=1)
    differs = same_bits(first, second)
    if subject.capabilities.random and differs is None:
        raise Violation("it is declared random, and two seeds give the same result", reproduce=_TWO_SEEDS)
    if subject.capabilities.random or differs is None:
        return
    what = "it is not declared random, and another seed gives another result"
    if not subject.capabilities.statistics:
        raise Violation(f"{what}: {differs} differs", reproduce=_TWO_SEEDS)
    # A statistic goes through the samples in an order of the seed, so that sums round differently.
    assert_alike(subject, first, second, case, what)


@check("FM-303", requires=("FM-301",))
def order_of_tensors(subject: MethodSubject) -> None:
    """The order of tensors in the files, and how they are cut into files, change nothing.

    The same model is stored in many ways: another sharding must not give another merge. Equal bits are
    asked of tensor methods without a survey; sums over a whole model may round by their order.

    Fix: key random numbers by the tensor's name, as `group.uniform` and `job.generator(…, name)` do;
    carry nothing over from one tensor to the next.
    """
    from fusionbench_core.testing.artefacts import fuse_pool, pool_for

    case = subject.case()
    ways: dict[str, Any] = {
        "in one file": {},
        "in reverse order": {"reverse": True},
        "in many files": {"max_shard_size": 300},
    }
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        for way, options in ways.items():
            directory = Path(scratch, way)
            pool = pool_for(subject, case, directory, **options)
            found[way] = picture_of(subject, fuse_pool(subject, pool, case.tasks), case)
    wanted = found.pop("in one file")
    for way, result in found.items():
        what = f"with the tensors stored {way} the result is another"
        if subject.streams and not subject.capabilities.surveys:
            assert_same(result, wanted, what)
        else:
            assert_alike(subject, result, wanted, case, what)


@check("FM-304", requires=("FM-301",))
def order_of_models(subject: MethodSubject) -> None:
    """The order of the models counts where it is declared to, and it is the one in the config.

    A mapping is written in any order, and read in another: a method that quietly takes the first model
    for a special one gives another result after a rename.

    Fix: treat all models alike, or declare `ordered=True` and go by the order of `group.models` or
    `job.pool`; never sort the names.
    """
    if subject.count() < 2:
        raise Inapplicable("it takes one model only")
    case = subject.case()
    wanted = behaviour(subject, subject.pictured)
    if not subject.capabilities.ordered:
        turned = type(case)(case.name, case.base, _reversed(case.models), _reversed(case.tasks))
        what = "models named in another order give another result, and `ordered` is not declared"
        found = behaviour(subject, isolated(subject, turned))
        assert_alike(subject, found, wanted, case, what)
        return
    if subject.capabilities.random:
        raise Inapplicable("its random numbers are keyed by the models' names, which cannot be changed alone")
    others = behaviour(subject, isolated(subject, _renamed(case)))
    found = {_old(name): tensor for name, tensor in others.items()}
    what = "it is declared ordered, and models of other names, in the same order, give another result"
    assert_alike(subject, found, wanted, case, what)


@check("FM-305", level="full", requires=("FM-301",))
def hash_seed(subject: MethodSubject) -> None:
    """The result does not depend on `PYTHONHASHSEED`.

    Python hashes strings differently in every process, so sets of names come in another order, and
    `hash(name)` is another number.

    Fix: iterate over lists or sorted names, never over sets; make seeds with `job.generator(…)`, never
    with `hash`.
    """
    first, second = _under_two_hash_seeds(subject)
    differs = [name for name in first if first[name] != second.get(name)]
    if differs:
        raise Violation(
            f"two values of PYTHONHASHSEED give two results: {len(differs)} of {len(first)} tensors "
            f"differ, the first is {differs[0]}",
            reproduce="run the same script with PYTHONHASHSEED=1 and PYTHONHASHSEED=2",
        )


@check("FM-306", requires=("FM-301",))
def global_random_state(subject: MethodSubject) -> None:
    """Global random number generators are neither used nor moved.

    Whatever draws from them depends on all code that ran before; whatever moves or seeds them changes
    the training and the evaluation that come after.

    Fix: draw from `group.uniform`, `job.generator(…)`, or a generator of your own; never call
    `torch.manual_seed`, `random.seed` or `numpy.random.seed`.
    """
    case = subject.case()
    found = []
    for number in (1, 2):
        with fixed_global_seed(number):
            before = _generators()
            found.append(picture(subject, case))
            moved = changed(before, _generators())
        if moved:
            raise Violation(f"it moves the global random state of {', '.join(moved)}")
    differs = same_bits(*found)
    if differs is not None:
        raise Violation(f"it depends on global random state: other states give another {differs}")


@check("FM-307", required=False)
def chunks(subject: MethodSubject) -> None:
    """Cutting tensors into pieces, as the locality allows, changes nothing.

    The engine cuts large tensors by the declared locality: a method that needs more than that gives a
    wrong result without an error, and only for large models.

    Fix: declare `locality="row"` or `"tensor"`, or compute what needs the whole tensor in a survey; key
    random numbers by `group.start`, as `group.uniform` does.
    """
    from fusionbench_core.methods import TensorMethod
    from fusionbench_core.testing.artefacts import takes_base
    from fusionbench_core.testing.groups import merge_groups

    subject.needs_streaming()
    locality = subject.capabilities.locality
    if locality not in ("element", "row"):
        raise Inapplicable(f"with locality {locality!r} the engine does not cut tensors")
    case = subject.case()
    models, base = case.states()
    given = base if takes_base(subject) else None
    cut, whole = (subject.method(tuple(models)) for _ in range(2))
    assert isinstance(cut, TensorMethod)
    assert isinstance(whole, TensorMethod)
    assert_close(
        merge_groups(cut, models, given, entries=3),
        merge_groups(whole, models, given),
        [base, *models.values()],
        f"its locality is {locality!r}, and cutting tensors into smaller pieces changes the result",
        false_declaration=True,
    )


@check("FM-308", required=False, level="full", requires=("FM-301",))
def devices(subject: MethodSubject) -> None:
    """On a GPU the result is the one of the CPU, up to rounding.

    Methods that learn, and statistics, compute where Fabric puts them; tensor methods on the device of the
    engine, if they declare `device="any"`.

    Fix: make tensors on `job.fabric.device` or `group.device`, draw random numbers on the CPU and move them.
    """
    import torch

    from fusionbench_core.methods import TensorMethod
    from fusionbench_core.testing.artefacts import fuse_pool, pool_for

    declared = subject.capabilities
    if issubclass(subject.cls, TensorMethod) and not declared.statistics and declared.device == "cpu":
        raise Inapplicable("the method merges on the CPU")
    if not torch.cuda.is_available():
        raise Inapplicable("there is no GPU on this machine")
    case = subject.case()
    with tempfile.TemporaryDirectory() as scratch:
        pool = pool_for(subject, case, Path(scratch))
        found = {}
        for where in ("cpu", "cuda"):
            with own_cache():
                fused = fuse_pool(subject, pool, case.tasks, accelerator=where)
            found[where] = picture_of(subject, fused, case)
    assert_alike(
        subject, found["cuda"], found["cpu"], case, "a GPU gives another result than the CPU", k=TRAINED
    )


def _generators() -> dict[str, Any]:
    """Name of a global generator -> its state."""
    prefix = "the random state of "
    return {
        name.removeprefix(prefix).strip("`"): state
        for name, state in global_state().items()
        if name.startswith(prefix)
    }


def _reversed(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return dict(reversed(list(mapping.items())))


def _renamed(case: Case) -> Case:
    """The same models in the same order, with names whose alphabetical order is the opposite."""
    names = {old: f"{'zyxwv'[number]}_{old}" for number, old in enumerate(case.models)}
    return type(case)(
        case.name,
        case.base,
        {names[old]: model for old, model in case.models.items()},
        {names[old]: task.model_copy(update={"name": names[old]}) for old, task in case.tasks.items()},
    )


def _old(name: str) -> str:
    """The name of an output before models and tasks were renamed."""
    if not name.startswith(OUTPUTS):
        return name
    task = name.removeprefix(OUTPUTS).partition("_")[2]
    return f"{OUTPUTS}{task}"


def _under_two_hash_seeds(subject: MethodSubject) -> tuple[dict[str, str], dict[str, str]]:
    """Digests under `PYTHONHASHSEED=1` and `=2`, where this process may have the second."""
    from fusionbench_core.testing.fresh import run

    first = run(_digests_there, subject.record, hashseed=1)
    if os.environ.get("PYTHONHASHSEED") == "2":
        return first, _digests(subject.pictured)
    return first, run(_digests_there, subject.record, hashseed=2)


def _digests_there(record: MethodRecord) -> dict[str, str]:
    """The digests of what a method gives; runs in whichever process has the hash seed."""
    subject = subject_of(record)
    assert isinstance(subject, MethodSubject)
    return _digests(subject.pictured)


def _digests(found: Picture) -> dict[str, str]:
    """Tensor name -> hash of its bytes."""
    from fusionbench_core.checkpoints.checkpoint import hash_tensor

    return {name: hash_tensor(tensor).hex() for name, tensor in found.items()}
