"""Runs a peer once for all its cases, through files.

`models.pt` holds dtype -> model -> tensors, `jobs.json` a list of what to do, and `results.pt`, which the
peer writes, job -> a list with `{"state": tensors, "refused": tensor -> message}` for each draw.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from parity.models import Model

Draws = list[dict[str, Any]]


def run_peer(
    python: Path, script: Path, jobs: list[dict[str, Any]], models: dict[str, dict[str, Model]]
) -> dict[tuple[int, str], Draws]:
    """Job -> its draws.

    Raises:
        RuntimeError: the end of what the peer said, if it fails.
    """
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        torch.save(models, directory / "models.pt")
        (directory / "jobs.json").write_text(json.dumps(jobs))
        settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [python, script.name, directory],
            cwd=script.parent,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{script.name} failed:\n{done.stderr[-4000:]}")
        return torch.load(directory / "results.pt")
