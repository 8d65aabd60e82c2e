"""Fingerprints of large checkpoints, remembered between runs."""

from __future__ import annotations

from fusionbench_core.checkpoints.checkpoint import Checkpoint
from fusionbench_core.checkpoints.memory import StateDictCheckpoint
from fusionbench_core.places import cache_dir, write


def fingerprint(checkpoint: Checkpoint) -> str:
    """`checkpoint.fingerprint()`, computed once as long as the files do not change."""
    if isinstance(checkpoint, StateDictCheckpoint):
        return checkpoint.fingerprint()
    try:
        note = cache_dir("fingerprints") / checkpoint.identity()
        if note.exists():
            return note.read_text()
        found = checkpoint.fingerprint()
        write(str(note), found)
    except OSError:
        return checkpoint.fingerprint()
    return found
