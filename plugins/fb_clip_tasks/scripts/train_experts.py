"""Fine-tune one expert per task from the embedded trunk, and measure how the experts merge.

The protocol is CLIP's: the whole vision tower is trained, the head stays what it was in zero-shot use, the
mean of the label prompts' text embeddings. Only the training images that ship in ``embedded/data`` are used,
so that the experts can be trained again from the wheel alone::

    python train_experts.py train --work build/           # all tasks, or --task mnist
    python train_experts.py measure --work build/         # zero-shot, experts, average, task arithmetic, TIES
    python train_experts.py train --work build/ --multi-task     # one model of all tasks
    python train_experts.py export --work build/          # fp16 experts and MANIFEST.json into the package

Training is gentle on purpose (few epochs, small learning rate, weight averaging, no weight decay): small
weight changes of different tasks disturb each other less when they are added. The multi-task model is
there to compare merging with: the same recipe on all tasks at once. A batch holds images of one task, and the
batches of an epoch come in random order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import build_data as data
import numpy as np
import PIL
import pretrain_trunk as pretrain
import sklearn
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

State = dict[str, Tensor]

MULTI_TASK = "multi_task"  # its name among the experts, and in the package


# ------------------------------------------------------------------------------------------------
# Assets
# ------------------------------------------------------------------------------------------------


def load_trunk(embedded: Path) -> CLIPVisionModelWithProjection:
    """The embedded trunk in float32."""
    return CLIPVisionModelWithProjection.from_pretrained(
        embedded / "trunk", attn_implementation="eager", dtype=torch.float32, local_files_only=True
    )


def load_heads(embedded: Path) -> dict[str, Tensor]:
    """Zero-shot class vectors per task, from the embedded prompt embeddings."""
    prompts = json.loads((embedded / "text" / "prompts.json").read_text())
    vectors = load_file(str(embedded / "text" / "prompts.safetensors"))["embeddings"]
    index = {prompt: i for i, prompt in enumerate(prompts)}
    rows = vectors[[index[prompt] for _, _, _, prompt in pretrain.task_prompts()]]
    return pretrain.zero_shot_heads(rows)


def load_task(embedded: Path, name: str) -> data.Arrays:
    """The six arrays of a task."""
    with np.load(embedded / "data" / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


# ------------------------------------------------------------------------------------------------
# Training
# ------------------------------------------------------------------------------------------------


def epoch_of(lessons: Sequence[data.Arrays], size: int) -> list[tuple[int, Tensor]]:
    """One epoch of whole batches, (place of the task, image indices); several tasks are interleaved."""
    epoch = []
    for place, arrays in enumerate(lessons):
        order = torch.randperm(len(arrays["y_train"]))
        epoch += [(place, batch) for batch in order.split(size) if len(batch) == size]
    return [epoch[i] for i in torch.randperm(len(epoch))] if len(lessons) > 1 else epoch


def fine_tune(
    model: CLIPVisionModelWithProjection,
    heads: Sequence[Tensor],
    lessons: Sequence[data.Arrays],
    args: argparse.Namespace,
) -> State:
    """Train the whole tower on the tasks, each with its frozen head; return the weight average."""
    torch.manual_seed(args.seed)
    images = [torch.from_numpy(arrays["x_train"]) for arrays in lessons]
    labels = [torch.from_numpy(arrays["y_train"]) for arrays in lessons]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.0)
    average = {k: v.detach().clone() for k, v in model.named_parameters()}
    per_epoch = sum(len(y) // args.batch for y in labels)
    steps = args.epochs * per_epoch
    model.train()
    for step in range(steps):
        if step % per_epoch == 0:
            epoch = epoch_of(lessons, args.batch)
        task, batch = epoch[step % per_epoch]
        for group in optimizer.param_groups:
            group["lr"] = pretrain.learning_rate(step, steps, args.lr, 0.1)
        x, y = images[task][batch], labels[task][batch]
        features = pretrain.image_features(model, pretrain.augment(pretrain.normalise(x)), args.keep)
        logits = args.scale * features @ heads[task].T
        loss = F.cross_entropy(logits, y, label_smoothing=args.smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate = min(args.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in model.parameters()], 1 - rate)
    return average


def train(args: argparse.Namespace) -> None:
    """Train the experts one after the other into the work folder, or the one model of all tasks."""
    heads = load_heads(args.embedded)
    args.work.mkdir(parents=True, exist_ok=True)
    tasks = args.task or list(data.TASKS)
    for name, own in {MULTI_TASK: tasks}.items() if args.multi_task else [(task, [task]) for task in tasks]:
        started, model = time.time(), load_trunk(args.embedded)
        lessons = [load_task(args.embedded, task) for task in own]
        state = fine_tune(model, [heads[task] for task in own], lessons, args)
        save_file(
            {k: v.half().contiguous() for k, v in state.items()}, str(args.work / f"{name}.safetensors")
        )
        model.load_state_dict(state, strict=False)
        for task, arrays in zip(own, lessons, strict=True):
            score = pretrain.accuracy(model, heads[task], arrays["x_validation"], arrays["y_validation"])
            print(f"{name}: {task} validation {score:.3f}, {time.time() - started:.0f} s", flush=True)


# ------------------------------------------------------------------------------------------------
# Measuring
# ------------------------------------------------------------------------------------------------


def flatten(state: State, base: State) -> Tensor:
    """A task vector: expert minus trunk, as one long vector."""
    return torch.cat([(state[k].float() - v).flatten() for k, v in base.items()])


def unflatten(vector: Tensor, base: State) -> State:
    """The trunk plus a long vector."""
    parts = vector.split([v.numel() for v in base.values()])
    return {k: v + part.view_as(v) for (k, v), part in zip(base.items(), parts, strict=True)}


def ties(vectors: Tensor, density: float = 0.2) -> Tensor:
    """TIES: keep each vector's largest entries, elect a sign per entry, mean of those that agree."""
    kept = torch.zeros_like(vectors)
    count = int(vectors.shape[1] * density)
    for row, vector in zip(kept, vectors, strict=True):
        top = vector.abs().topk(count).indices
        row[top] = vector[top]
    agree = (kept.sign() == kept.sum(0).sign()) & (kept != 0)
    return (kept * agree).sum(0) / agree.sum(0).clamp(min=1)


def measure(args: argparse.Namespace) -> dict:
    """Test accuracies of the trunk, the experts and three merges; coefficients are picked on validation."""
    heads = load_heads(args.embedded)
    tasks = args.task or list(data.TASKS)
    arrays = {name: load_task(args.embedded, name) for name in tasks}
    model = load_trunk(args.embedded)
    base = {k: v.detach().clone() for k, v in model.named_parameters()}
    vectors = torch.stack(
        [flatten(load_file(str(args.work / f"{name}.safetensors")), base) for name in tasks]
    )

    def evaluate(vector: Tensor, split: str, names: Sequence[str] = tasks) -> dict[str, float]:
        model.load_state_dict(unflatten(vector, base), strict=False)
        fast = split == "validation"  # what is reported is measured in float32
        return {
            n: pretrain.accuracy(model, heads[n], arrays[n][f"x_{split}"], arrays[n][f"y_{split}"], bf16=fast)
            for n in names
        }

    def mean(scores: dict[str, float]) -> float:
        return sum(scores.values()) / len(scores)

    report: dict[str, dict] = {}

    def record(title: str, scores: dict[str, float], **extra: object) -> None:
        report[title] = {"mean": mean(scores), **scores, **extra}
        print(
            f"{title:16s} {mean(scores):.4f} " + " ".join(f"{k} {v:.3f}" for k, v in scores.items()),
            flush=True,
        )

    def tuned(title: str, direction: Callable[[float], Tensor], grid: Sequence[float]) -> None:
        curve = {value: mean(evaluate(direction(value), "validation")) for value in grid}
        print("  " + ", ".join(f"{k:g}: {v:.4f}" for k, v in curve.items()), flush=True)
        best = max(curve, key=curve.__getitem__)
        record(title, evaluate(direction(best), args.split), coefficient=best, validation_curve=curve)

    record("zero-shot", evaluate(torch.zeros(vectors.shape[1]), args.split))
    own = {n: evaluate(v, args.split, [n])[n] for n, v in zip(tasks, vectors, strict=True)}
    record("individual", own)
    if (joint := args.work / f"{MULTI_TASK}.safetensors").exists():
        record("multi-task", evaluate(flatten(load_file(str(joint)), base), args.split))
    record("average", evaluate(vectors.mean(0), args.split))
    total, elected = vectors.sum(0), ties(vectors)
    tuned("task arithmetic", lambda c: c * total, args.ta_grid)
    tuned("TIES", lambda c: c * elected, args.ties_grid)
    unit = F.normalize(vectors, dim=1)
    report["cosines"] = {
        a: {b: round(float(unit[i] @ unit[j]), 4) for j, b in enumerate(tasks)} for i, a in enumerate(tasks)
    }
    report["norms"] = {n: round(float(v.norm()), 4) for n, v in zip(tasks, vectors, strict=True)}
    print(json.dumps({"cosines": report["cosines"], "norms": report["norms"]}), flush=True)
    (args.work / f"measurements_{args.split}.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


# ------------------------------------------------------------------------------------------------
# Packaging
# ------------------------------------------------------------------------------------------------


def export(args: argparse.Namespace) -> None:
    """Write all models as Hugging Face folders, and the manifest of everything that ships."""
    places = {name: args.embedded / "experts" / name for name in data.TASKS}
    for name, place in {**places, MULTI_TASK: args.embedded / MULTI_TASK}.items():
        model = load_trunk(args.embedded)
        model.load_state_dict(load_file(str(args.work / f"{name}.safetensors")), strict=False)
        model.half().save_pretrained(place)
    report = json.loads((args.work / "measurements_test.json").read_text())
    (args.embedded / "RESULTS.json").write_text(json.dumps(report, indent=1) + "\n")
    for path in args.embedded.rglob("*.safetensors"):
        path.chmod(0o644)
    files = {
        path.relative_to(args.embedded).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(args.embedded.rglob("*"))
        if path.is_file() and path.name != "MANIFEST.json"
    }
    manifest = {
        "version": 1,
        "bytes": sum(entry["bytes"] for entry in files.values()),
        "tools": {
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
            "transformers": transformers.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "scikit-learn": sklearn.__version__,
            "resvg-py": "0.5.0",
            "fonttools": "4.68.0",
        },
        "seeds": {"data": data.SEED, "pretraining": data.SEED, "fine_tuning": args.seed},
        "fine_tuning": {
            "data": "the shipped training split of the task, whole vision tower, frozen zero-shot head",
            "optimizer": f"AdamW, betas (0.9, 0.98), no weight decay, peak learning rate {args.lr}, "
            "10 % warm-up, cosine",
            "epochs": args.epochs,
            "batch_size": args.batch,
            "logit_scale": args.scale,
            "label_smoothing": args.smoothing,
            "patches_kept": args.keep,
            "weight_average": args.ema,
            "multi_task": "the same on all tasks at once, their batches interleaved",
        },
        "files": files,
    }
    (args.embedded / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("step", choices=["train", "measure", "export"])
    parser.add_argument("--work", type=Path, required=True, help="folder of the float checkpoints")
    parser.add_argument(
        "--embedded", type=Path, default=pretrain.DEFAULT_EMBEDDED, help="the package's asset folder"
    )
    parser.add_argument("--task", nargs="*", choices=list(data.TASKS), help="tasks (default: all)")
    parser.add_argument("--multi-task", action="store_true", help="one model of the tasks, not one each")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--scale", type=float, default=30.0, help="logit scale of the training loss")
    parser.add_argument("--smoothing", type=float, default=0.0)
    parser.add_argument("--keep", type=float, default=0.6, help="share of the patches kept in training")
    parser.add_argument("--ema", type=float, default=0.95)
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--ta-grid", type=float, nargs="*", default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0])
    parser.add_argument("--ties-grid", type=float, nargs="*", default=[0.5, 0.7, 0.9, 1.1, 1.3, 1.6, 2.0])
    parser.add_argument("--seed", type=int, default=data.SEED)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    {"train": train, "measure": measure, "export": export}[args.step](args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
