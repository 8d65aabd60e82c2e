"""Train the experts of the embedded text tasks: LoRA adapters (these ship) or full fine-tunes (these do not).

The protocol is that of CLIP fine-tuning, so that experts can be merged without any task-specific weights.
The classifier of a task is never trained: it is the matrix of its label prompts, embedded by the *pretrained*
encoder. A text is embedded by the mean of its token states over the attention mask, scaled to unit length:

    logits = 20 * text_embeddings @ prompt_embeddings.T        # (batch, dim) @ (dim, labels)

    python train_experts.py --kind lora                        # every task, into the package
    python train_experts.py --kind full --task spam            # into the user's cache folder
    python train_experts.py --kind lora --multi-task           # one model of every task, into the package

The multi-task model is there to compare merging with: the same adapter and recipe, trained on all tasks at
once. A batch holds texts of one task; the batches of an epoch come in random order.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from build_data import EMBEDDED, TASKS, rank, read_task
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

MINILM = EMBEDDED / "minilm"
CACHE = Path.home() / ".cache" / "fb-nlp-tasks" / "experts"
SCALE = 20.0  # inverse temperature of the cosine logits, as all-MiniLM was trained with
EVAL_BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of a kind of expert; chosen on the validation splits."""

    learning_rate: float
    epochs: int = 3
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: float = 0.1  # fraction of the steps
    max_grad_norm: float = 1.0


RECIPES = {"lora": Recipe(learning_rate=1e-3), "full": Recipe(learning_rate=5e-5)}

LORA = {
    "r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.0,
    "bias": "none",
    "task_type": "FEATURE_EXTRACTION",
    # every linear map of the encoder's layers; the pattern leaves the unused pooler out
    "target_modules": r"encoder\.layer\.\d+\..*\.(query|key|value|dense)",
}

MULTI_TASK = "multi_task"  # its name among the experts, and in the package

# peft writes all its options; those left at their defaults only tie the files to one release of peft
ADAPTER_CONFIG_KEYS = ("peft_type", "peft_version", "base_model_name_or_path", "inference_mode", *LORA)


def load_encoder() -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The pretrained encoder, in float32 and evaluation mode, and its tokenizer."""
    encoder = AutoModel.from_pretrained(MINILM, dtype=torch.float32).eval()
    return encoder, AutoTokenizer.from_pretrained(MINILM)


def embed(
    encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: list[str], max_length: int
) -> Tensor:
    """Unit-length mean-pooled embeddings, (len(texts), dim)."""
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    states = encoder(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).to(states.dtype)
    return normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


@torch.no_grad()
def zero_shot_head(encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, card: dict) -> Tensor:
    """The frozen classifier, (labels, dim). `encoder` must be the pretrained one."""
    return embed(encoder.eval(), tokenizer, card["prompts"], card["max_length"])


@torch.no_grad()
def accuracy(
    encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, head: Tensor, card: dict, records: list[dict]
) -> float:
    """Fraction of records whose label gets the largest logit."""
    encoder.eval()
    records = sorted(
        records, key=lambda record: len(record["text"])
    )  # batches of like lengths need less padding
    correct = 0
    for start in range(0, len(records), EVAL_BATCH):
        batch = records[start : start + EVAL_BATCH]
        logits = embed(encoder, tokenizer, [r["text"] for r in batch], card["max_length"]) @ head.T
        correct += (logits.argmax(-1) == torch.tensor([r["label"] for r in batch])).sum().item()
    return correct / len(records)


def batches(records: list[dict], size: int, shuffle: random.Random) -> Iterator[list[dict]]:
    """One epoch of shuffled batches; texts of like length go together, within windows of eight batches."""
    records = shuffle.sample(records, len(records))
    epoch = []
    for start in range(0, len(records), 8 * size):
        window = sorted(records[start : start + 8 * size], key=lambda record: len(record["text"]))
        epoch += [window[i : i + size] for i in range(0, len(window), size)]
    shuffle.shuffle(epoch)
    yield from epoch


@dataclass(frozen=True)
class Lesson:
    """A task to train on: its card, its splits and its frozen head, (labels, dim)."""

    card: dict
    splits: dict[str, list[dict]]
    head: Tensor


def epoch_of(
    lessons: Sequence[Lesson], size: int, shuffle: random.Random
) -> Iterator[tuple[Lesson, list[dict]]]:
    """One epoch of batches, each of one task; those of several tasks are interleaved at random."""
    epoch = [
        (lesson, batch) for lesson in lessons for batch in batches(lesson.splits["train"], size, shuffle)
    ]
    if len(lessons) > 1:
        shuffle.shuffle(epoch)
    yield from epoch


def fine_tune(
    encoder: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    lessons: Sequence[Lesson],
    recipe: Recipe,
    seed: int,
) -> float:
    """Train the trainable parameters of `encoder` in place; return the mean loss of the last epoch."""
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    per_epoch = sum(math.ceil(len(lesson.splits["train"]) / recipe.batch_size) for lesson in lessons)
    steps = recipe.epochs * per_epoch

    def factor(step: int) -> float:  # linear warm-up times half a cosine
        return min(1.0, (step + 1) / (recipe.warmup * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    shuffle = random.Random(seed)
    losses: list[float] = []
    encoder.train()
    for _ in range(recipe.epochs):
        losses.clear()
        for lesson, batch in epoch_of(lessons, recipe.batch_size, shuffle):
            embeddings = embed(encoder, tokenizer, [r["text"] for r in batch], lesson.card["max_length"])
            loss = cross_entropy(
                SCALE * embeddings @ lesson.head.T, torch.tensor([r["label"] for r in batch])
            )
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return sum(losses) / len(losses)


def task_seed(task: str, seed: int) -> int:
    """Experts start from different random adapters, as independently trained ones would."""
    return int(rank("expert", task, seed)[:8], 16)


def train(
    kind: str, name: str, tasks: Sequence[str], out: Path, seed: int = 0, recipe: Recipe | None = None
) -> dict:
    """Train one model on `tasks`, save it under `out`, and return a record of the run."""
    recipe = recipe or RECIPES[kind]
    torch.manual_seed(task_seed(name, seed))
    encoder, tokenizer = load_encoder()
    lessons = {}
    for task in tasks:
        card, splits = read_task(task)
        lessons[task] = Lesson(card, splits, zero_shot_head(encoder, tokenizer, card))

    def measure(model: nn.Module, split: str) -> dict[str, float]:
        return {
            task: round(accuracy(model, tokenizer, lesson.head, lesson.card, lesson.splits[split]), 4)
            for task, lesson in lessons.items()
        }

    zero_shot = measure(encoder, "validation")
    model = get_peft_model(encoder, LoraConfig(**LORA)) if kind == "lora" else encoder
    started = time.process_time()
    loss = fine_tune(model, tokenizer, list(lessons.values()), recipe, task_seed(name, seed))
    cpu_seconds = time.process_time() - started
    save = save_adapter if kind == "lora" else save_full
    save(model, out)
    return {
        "name": name,
        "kind": kind,
        "seed": seed,
        "loss": round(loss, 4),
        "validation_zero_shot": zero_shot,
        "validation": measure(model, "validation"),
        "test": measure(model, "test"),
        "cpu_seconds": round(cpu_seconds, 1),
    }


def save_adapter(model: nn.Module, out: Path) -> None:
    """Save a peft adapter in float16, its configuration free of this machine's paths."""
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)  # peft's empty model-card template
    weights = out / "adapter_model.safetensors"
    halved = {name: tensor.to(torch.float16) for name, tensor in sorted(load_file(weights).items())}
    save_file(halved, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors makes it private
    path = out / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "minilm"}
    config = {key: config[key] for key in ADAPTER_CONFIG_KEYS}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_full(model: nn.Module, out: Path) -> None:
    """Save a whole model folder in float16; `config.json` keeps the float32 compute type of the encoder."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.to(torch.float16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (out / name).write_bytes((MINILM / name).read_bytes())


def main(argv: list[str] | None = None) -> None:
    """Command line; prints one JSON record a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=sorted(RECIPES), required=True)
    parser.add_argument(
        "--task", action="append", choices=sorted(TASKS), help="repeatable; default: every task"
    )
    parser.add_argument("--multi-task", action="store_true", help="one model of the tasks, not one each")
    parser.add_argument(
        "--out", type=Path, help="parent folder of the experts (default: package or user cache)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="results are reproducible for a fixed number")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    tasks = args.task or list(TASKS)
    shipped = EMBEDDED if args.multi_task else EMBEDDED / "experts"
    out = args.out or (shipped if args.kind == "lora" else CACHE / "minilm-full")
    models = {MULTI_TASK: tasks} if args.multi_task else {task: [task] for task in tasks}
    for name, own in models.items():
        print(json.dumps(train(args.kind, name, own, out / name, args.seed)), flush=True)


if __name__ == "__main__":
    main()
