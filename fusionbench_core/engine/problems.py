"""Everything that speaks against a plan, told at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fusionbench_core.errors import PlanError


class Problems:
    """Plan errors that are gathered, to be raised together."""

    def __init__(self, found: Iterable[PlanError] = ()) -> None:
        self._found = list(found)

    def __bool__(self) -> bool:
        return bool(self._found)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Within this, a plan error ends the block and is kept."""
        try:
            yield
        except PlanError as error:
            self._found.append(error)

    def raise_any(self) -> None:
        """Raise what was found: one error as it is, several as one that tells all of them.

        Raises:
            PlanError: if there was any.
        """
        if not self._found:
            return
        if len(self._found) == 1:
            raise self._found[0]
        raise PlanError(
            f"this cannot work, for {len(self._found)} reasons",
            why="\n".join(f"{number}. {error}" for number, error in enumerate(self._found, start=1)),
        )
