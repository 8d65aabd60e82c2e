"""Record what mergekit makes of the configs in `tests/mergekit/configs`, for the tests to compare with.

python benchmarks/mergekit_configs.py
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from peers import PEERS

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run mergekit in its own environment."""
    mergekit = next(peer for peer in PEERS if peer.name.startswith("mergekit"))
    script = ROOT / "benchmarks/parity/record_configs.py"
    tests = ROOT / "tests/mergekit"
    subprocess.run(
        [mergekit.install(), script, tests / "configs", tests / "recorded.json"],
        check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


if __name__ == "__main__":
    main()
