"""Where a run says how far it is."""

from __future__ import annotations


class Console:
    """Says nothing; the command line gives one that does. All calls come from the main thread."""

    def stage(self, name: str, text: str = "") -> None:
        """A stage begins: plan, merge, evaluate, …"""

    def progress(self, done: int, total: int, text: str = "") -> None:
        """The current stage has come so far."""

    def line(self, text: str) -> None:
        """Something worth a line."""

    def close(self) -> None:
        """Nothing more will come."""
