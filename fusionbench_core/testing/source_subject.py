"""A model source, as checks look at it."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import weakref
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionbench_core.testing.check import Kind, Violation
from fusionbench_core.testing.subject import Subject

if TYPE_CHECKING:
    from fusionbench_core.pools import ModelSource


@dataclasses.dataclass(frozen=True)
class SourceSubject(Subject):
    """A model source."""

    kind: Kind = dataclasses.field(init=False, default="source")

    def source(self, directory: Path) -> ModelSource:
        """The source over the small model that its author's `example` writes into `directory`.

        Raises:
            Violation: if the author gives no example.
        """
        example = self.cls.example(directory)
        if example is None:
            raise Violation(
                "there is no example to check it on: `example(directory)` gives None",
                reproduce=f"{self.cls.__name__}.example(Path('somewhere'))",
            )
        return self.cls.model_validate(dict(example))

    @cached_property
    def directory(self) -> Path:
        """Where the example that checks share is. They only read there."""
        directory = Path(tempfile.mkdtemp(prefix="fb-example-")).resolve()
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        return directory

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the source over the shared example."""
        return self.source(self.directory).model_dump()

    def fresh(self, **parameters: Any) -> ModelSource:
        """A new source over the shared example, with these parameters."""
        return self.cls.model_validate({**self.parameters, **parameters})
