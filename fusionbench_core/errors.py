"""One error class a cause, each with its remedy and a documented exit status.

Every error says *what* went wrong, *where* (as named facts: a file, a model, a tensor), *why*, and
*what to do* about it. The command line prints exactly :func:`str` of the error.

Exit statuses of `fb`:

=====  ======================================================================
0      everything asked for was done
1      an unexpected failure: a defect of this program or of a plugin
2      the request is wrong: command line, config, an unknown or ambiguous name
3      a plugin that is needed is broken or incompatible
4      the plan cannot work: models, capabilities, memory or disk do not fit
5      an input cannot be read: missing, offline, corrupt or not trusted
6      fusing failed: non-finite weights, or an error inside a method
7      a task could not be evaluated
8      the output cannot be written
130    interrupted; `fb run --resume` goes on
=====  ======================================================================
"""

from __future__ import annotations

from typing import ClassVar


class FusionError(Exception):
    """What went wrong, where, why, and what to do.

    Args:
        what: One sentence naming the thing that failed.
        why: The reason, where it is not obvious.
        fix: What the user can do about it.
        where: Named facts, printed one a line in the order given (`config=…`, `model=…`, `tensor=…`).
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str | None = None, fix: str | None = None, **where: object) -> None:
        self.what = what
        self.why = why
        self.fix = fix
        self.where = {key: str(value) for key, value in where.items() if value is not None}
        super().__init__(what)

    def __str__(self) -> str:
        facts = {**self.where, "why": self.why, "fix": self.fix}
        width = max((len(key) for key, value in facts.items() if value), default=0) + 3
        lines = [self.what]
        for key, value in facts.items():
            if value:
                first, *rest = value.splitlines()
                lines.append(f"  {key:<{width}}{first}")
                lines.extend(f"  {'':<{width}}{line}" for line in rest)
        return "\n".join(lines)

    def __reduce__(self):
        return (_rebuild, (type(self), self.what, self.why, self.fix, self.where))


def _rebuild(cls: type[FusionError], what: str, why: str | None, fix: str | None, where: dict) -> FusionError:
    return cls(what, why=why, fix=fix, **where)


class ConfigError(FusionError):
    """A config or an argument is wrong: file, key, reason, suggestion."""

    exit_code = 2


class UnknownName(ConfigError):
    """A name that no installed plugin provides."""


class NotInstalled(UnknownName):
    """A name of a plugin that is not installed here."""


class NameConflict(ConfigError):
    """A short name several plugins share, or a full name that two distributions claim."""


class PluginBroken(FusionError):
    """A plugin that is needed cannot be imported, or what it declares cannot be used."""

    exit_code = 3


class PluginIncompatible(PluginBroken):
    """A plugin asks for another version of the core than the one that runs."""


class PlanError(FusionError):
    """The request is well formed, but cannot work on these inputs or on this machine."""

    exit_code = 4


class IncompatibleModels(PlanError):
    """Tensors of the models do not fit together: names, shapes, vocabularies or dtypes."""


class MissingCapability(PlanError):
    """A method needs something that the pool, the tasks or a plugin does not provide."""


class UnsupportedArchitecture(PlanError):
    """A method cannot work on models of this architecture: it lacks the layers that the method is about."""


class InsufficientResources(PlanError):
    """The memory budget or the free disk space is too small."""


class InputError(FusionError):
    """Something that should be read cannot be read."""

    exit_code = 5


class NotFound(InputError):
    """A file, directory or reference does not exist."""


class Offline(InputError):
    """A hub reference is not in the local cache, and the hub cannot be reached."""


class CorruptFile(InputError):
    """A file is truncated, malformed, or contradicts its own header."""


class UntrustedFormat(InputError):
    """Reading the file would run code, so it is refused."""


class MethodError(FusionError):
    """A method failed on valid input; names plugin, method and tensor."""

    exit_code = 6


class NonFiniteInput(MethodError):
    """An input tensor holds NaN or Inf."""


class TaskError(FusionError):
    """A task could not be evaluated."""

    exit_code = 7


class OutputError(FusionError):
    """The output exists, cannot be written, or the disk is full."""

    exit_code = 8


class Interrupted(FusionError):
    """The user stopped the run; what is finished is kept."""

    exit_code = 130
