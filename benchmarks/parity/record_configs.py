"""Runs configs with mergekit, in its own environment: `python record_configs.py CONFIGS TARGET`.

Of every tensor of every result some entries are kept, in a JSON file; see `tests/support/tiny_llms.py`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from mergekit.config import MergeConfiguration
from mergekit.io.tasks import LoaderCache
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests/support"))

from tiny_llms import probe, write_all

RANDOM = ("dare_linear", "dare_ties", "della", "della_linear")


def merged(text: str) -> Path:
    """The directory of the last merge of a config, in the working directory."""
    target = Path("out")
    for document in yaml.safe_load_all(text):
        name, path = document.pop("name", None), document.pop("out_path", None)
        target = Path(path or name or "out")
        LoaderCache().loaders.clear()
        options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
        run_merge(MergeConfiguration.model_validate(document), str(target), options=options)
    return target


def main(configs: Path, target: Path) -> None:
    """Record all configs but those of random methods."""
    found: dict[str, Any] = {}
    for file in sorted(configs.glob("*.yml")):
        text = file.read_text()
        if any(f"merge_method: {method}\n" in text for method in RANDOM):
            continue
        with tempfile.TemporaryDirectory() as directory:
            os.chdir(directory)
            write_all(Path())
            result = merged(text)
            tensors = load_file(result / "model.safetensors")
            config = json.loads((result / "config.json").read_text())
            found[file.stem] = {
                "layers": config.get("num_hidden_layers", config.get("n_layer")),
                "dtype": config["dtype"],
                "tensors": {name: probe(tensor) for name, tensor in sorted(tensors.items())},
            }
            os.chdir("/")
    lines = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in found.items()]
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:3]))
