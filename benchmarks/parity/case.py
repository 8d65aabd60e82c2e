"""What is compared: a method of a peer with the same of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from parity.models import NAMES

ROUNDING = {"float32": 2e-6, "bfloat16": 2**-7}
"""Setting -> the largest difference that is rounding, relative to the largest entry."""

SVD_IN_FLOAT32 = {**ROUNDING, "float32": 3e-5}
"""The same where the peer factorises matrices in float32, and ours in float64."""

STANDARD_ERRORS = 5.5
"""The largest difference of thousands of means, in standard errors, that is chance."""


@dataclass(frozen=True)
class Why:
    """Why ours differs on purpose.

    Attributes:
        tensors: Where; "*" is everywhere.
        reason: One sentence, in the table of differences.
        settings: In which settings.
    """

    tensors: tuple[str, ...]
    reason: str
    settings: tuple[str, ...] = ("float32", "bfloat16")

    def __contains__(self, place: tuple[str, str]) -> bool:
        """Whether it speaks of a tensor in a setting."""
        tensor, setting = place
        return setting in self.settings and ("*" in self.tensors or tensor in self.tensors)


@dataclass(frozen=True)
class Case:
    """One method of a peer, with parameters that ask both for the same.

    Attributes:
        theirs: Name of the peer's method.
        ours: Name of ours.
        their_parameters: What the peer gets.
        our_parameters: What ours gets.
        models: Models merged by both.
        base: Whether ours gets the base.
        their_base: The model that the peer is told is the base; None: there is none.
        without: Tensors that neither gets.
        why: Why ours differs on purpose; the first one that speaks of a tensor counts.
        bounds: Setting -> the largest difference that needs no reason.
        tasks: Whether both give a model for each task; these are compared all together.
        draws: How many seeds are compared, for random methods; 0: the results themselves.
        note: What to know about the comparison.
    """

    theirs: str
    ours: str
    their_parameters: Mapping[str, Any] = field(default_factory=dict)
    our_parameters: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] = NAMES
    base: bool = True
    their_base: str | None = "base"
    without: tuple[str, ...] = ()
    why: Sequence[Why] = ()
    bounds: Mapping[str, float] = field(default_factory=lambda: ROUNDING)
    tasks: bool = False
    draws: int = 0
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """In which numbers models are stored, and in which the peer computes; ours takes float32 at least."""

    name: str
    dtype: str
    arithmetic: str


SETTINGS = (
    Setting("float32", "float32", "float32"),
    Setting("bfloat16", "bfloat16", "float32"),
    Setting("bfloat16 throughout", "bfloat16", "bfloat16"),
)
