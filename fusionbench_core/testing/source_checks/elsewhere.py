"""What a model is called by in another process."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusionbench_core.checkpoints import Checkpoint
from fusionbench_core.records import SourceRecord

Content = tuple[tuple[str, ...], str]
"""Names in their order, and the content hash."""


def content(checkpoint: Checkpoint) -> Content:
    """What identifies a model."""
    return checkpoint.keys(), checkpoint.fingerprint()


def contents(record: SourceRecord, parameters: Mapping[str, Any]) -> tuple[Content, Content]:
    """Of the model at `parameters`, and of the author's example written anew to another place."""
    from fusionbench_core.testing.source_subject import SourceSubject
    from fusionbench_core.testing.subjects import subject_of

    subject = subject_of(record)
    assert isinstance(subject, SourceSubject)
    with tempfile.TemporaryDirectory(prefix="fb-example-") as directory:
        again = content(subject.source(Path(directory)).open())
    return content(subject.cls.model_validate(parameters).open()), again
