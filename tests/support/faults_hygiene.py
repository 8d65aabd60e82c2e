"""Methods that leave traces, one fault each; all take the mean."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from fusionbench_core import Capabilities, MethodRecord, TensorMethod, implements

DOC = r"""The mean of all models.

    $$\theta = \frac{1}{T} \sum_t \theta_t$$
    """


def record(target: str, **capabilities: Any) -> MethodRecord:
    return MethodRecord(
        name="faulty",
        target=f"faults_hygiene:{target}",
        summary="a mean",
        capabilities=Capabilities(**capabilities),
    )


class Mean(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        self.leave_a_trace()
        return torch.stack(group.models).mean(0)

    def leave_a_trace(self) -> None:
        """The fault."""


SOUND = record("Sound")


@implements(SOUND)
class Sound(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        logging.getLogger("fusionbench.faulty").info("merging")
        kept = torch.get_default_dtype()
        torch.set_default_dtype(kept)


ASKS = record("AsksAServer")


@implements(ASKS)
class AsksAServer(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        try:
            socket.create_connection(("fusion.example", 443), timeout=1).close()
        except OSError:
            return


SAVES = record("Saves")


@implements(SAVES)
class Saves(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        torch.save({"a": 1}, "merged.pt")


REMEMBERS = record("RemembersAtHome")


@implements(REMEMBERS)
class RemembersAtHome(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        Path.home().joinpath(".faulty").write_text("was here")


ELSEWHERE = record("WritesElsewhere")
NOTES = Path(tempfile.gettempdir()) / f"faulty-{os.getpid()}.txt"


@implements(ELSEWHERE)
class WritesElsewhere(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        NOTES.write_text("was here")
        NOTES.unlink(missing_ok=True)


PRINTS = record("Prints")


@implements(PRINTS)
class Prints(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        print("merging")


SHOUTS = record("ShoutsBelowPython")


@implements(SHOUTS)
class ShoutsBelowPython(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        os.write(2, b"merging\n")


LOGS = record("LogsToTheRoot")


@implements(LOGS)
class LogsToTheRoot(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        logging.getLogger(__name__).warning("merging")


SETS = record("SetsTheEnvironment")


@implements(SETS)
class SetsTheEnvironment(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


TUNES = record("TunesTorch")


@implements(TUNES)
class TunesTorch(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        torch.backends.cudnn.benchmark = True


FINDS = record("ExtendsThePath")


@implements(FINDS)
class ExtendsThePath(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        sys.path.append("/nowhere")


WARNS = record("Warns")


@implements(WARNS)
class Warns(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        warnings.warn("all is well", stacklevel=2)


OUTDATED = record("Outdated")


@implements(OUTDATED)
class Outdated(Mean):
    __doc__ = DOC

    def leave_a_trace(self):
        warnings.warn("this will go", DeprecationWarning, stacklevel=1)
