"""Fabric comes without the trainer, which is there as soon as somebody asks for it."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

CODE = """
    import sys

    from fusionbench_core.methods.job import FusionJob

    fabric = FusionJob(pool=None).fabric
    assert not {"lightning.pytorch", "torchmetrics", "torchvision", "scipy"} & set(sys.modules)

    import lightning
    import lightning.fabric

    assert type(fabric) is lightning.fabric.Fabric is lightning.Fabric
    assert lightning.__version__.count(".") >= 2
    assert issubclass(lightning.Trainer, object) and "Trainer" in lightning.__all__
    try:
        lightning.no_such_thing
    except AttributeError:
        print("told")
"""


def test_the_trainer_is_imported_only_when_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", dedent(CODE)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "told\n"), done.stderr
