"""Write MANIFEST.json: size and SHA-256 of every embedded file, and what they were made with.

python write_manifest.py           # after any change to the embedded files
python write_manifest.py --check   # exit with 1 if a file differs from the manifest
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from build_data import EMBEDDED, TASKS

MANIFEST = "MANIFEST.json"


def files(folder: Path) -> dict[str, dict]:
    """Relative path -> bytes and SHA-256, for every file but the manifest."""
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def protocol() -> dict:
    """How the experts are trained and evaluated."""
    from train_experts import EVAL_BATCH, LORA, MULTI_TASK, RECIPES, SCALE, task_seed

    return {
        "head": "label prompts embedded by the pretrained encoder, frozen",
        "pooling": "mean over the attention mask, scaled to unit length",
        "logit_scale": SCALE,
        "evaluation": f"texts sorted by length, batches of {EVAL_BATCH}, float32",
        "training": asdict(RECIPES["lora"])
        | {"dtype": "float32", "threads": 1}
        | {"multi_task": "the same on all tasks at once, their batches interleaved"},
        "lora": LORA,
        "seed": 0,
        "task_seeds": {task: task_seed(task, 0) for task in (*TASKS, MULTI_TASK)},
    }


def manifest(folder: Path) -> dict:
    """The whole manifest of `folder`."""
    tools = ("torch", "transformers", "tokenizers", "peft", "safetensors")
    return {
        "tools": {"python": platform.python_version()} | {tool: version(tool) for tool in tools},
        "protocol": protocol(),
        "files": files(folder),
    }


def main(argv: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare the files with the manifest")
    parser.add_argument("--folder", type=Path, default=EMBEDDED)
    args = parser.parse_args(argv)
    path = args.folder / MANIFEST
    if args.check:
        recorded = json.loads(path.read_text())["files"]
        found = files(args.folder)
        changed = sorted(
            name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name)
        )
        print("\n".join(changed) if changed else f"{len(found)} files match")
        return bool(changed)
    path.write_text(json.dumps(manifest(args.folder), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
