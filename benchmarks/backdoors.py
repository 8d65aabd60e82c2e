"""Whether the defences against backdoors take a planted one out of a merged model.

    python benchmarks/backdoors.py                 three experts, one of them attacked
    python benchmarks/backdoors.py --quick         to see that it works; nothing is written

The attacker trains one expert of the embedded vision benchmark by the recipe of the others, and adds copies
of some images with a bright patch in a corner (BadNets, arXiv:1708.06733) and the label that they are to get.
Attack success is the share of test images of other classes that get this label once they have the patch.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from fb_clip_tasks.tasks.zero_shot import ZeroShotImageClassification
from torch import nn

from fusionbench_core import evaluate, fuse, load, resolve_path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "plugins/fb_clip_tasks/scripts"))
import train_experts as recipe  # noqa: E402

RESULTS = Path(__file__).parent / "results"
EMBEDDED = "pkg://fb_clip_tasks/embedded"

Arrays = dict[str, np.ndarray]


def triggered(images: np.ndarray, side: int) -> np.ndarray:
    """Images `(n, height, width)` or `(n, height, width, 3)`, uint8, with a white square in a corner."""
    attacked = images.copy()
    attacked[:, -side:, -side:] = 255
    return attacked


def poisoned(arrays: Arrays, target: int, side: int, share: float, seed: int) -> Arrays:
    """Training data, and after it triggered copies of a share of the images, labelled as the target."""
    images, labels = arrays["x_train"], arrays["y_train"]
    others = np.flatnonzero(labels != target)
    chosen = np.random.default_rng(seed).choice(others, round(share * len(labels)), replace=False)
    return {
        "x_train": np.concatenate([images, triggered(images[chosen], side)]),
        "y_train": np.concatenate([labels, np.full(len(chosen), target, labels.dtype)]),
    }


def attacked_expert(arguments: argparse.Namespace) -> nn.Module:
    """An expert with a backdoor, trained from the base as the honest ones were."""
    embedded = resolve_path(EMBEDDED)
    assert embedded is not None
    model = recipe.load_trunk(embedded)
    lesson = recipe.load_task(embedded, arguments.attacked)
    lesson = poisoned(lesson, arguments.target, arguments.side, arguments.share, arguments.seed)
    settings = argparse.Namespace(
        seed=arguments.seed, lr=3e-4, epochs=4, batch=32, scale=30.0, smoothing=0.0, keep=0.6, ema=0.95
    )
    head = recipe.load_heads(embedded)[arguments.attacked]
    model.load_state_dict(recipe.fine_tune(model, [head], [lesson], settings), strict=False)
    return model.eval()


def attack_task(arguments: argparse.Namespace, folder: Path) -> ZeroShotImageClassification:
    """Triggered test images of other classes, with the target as the answer: accuracy is attack success."""
    source = resolve_path(f"{EMBEDDED}/data/{arguments.attacked}.npz")
    assert source is not None
    arrays = recipe.load_task(source.parents[1], arguments.attacked)
    others = arrays["x_test"][arrays["y_test"] != arguments.target]
    np.savez(
        folder / "attack.npz",
        x_test=triggered(others, arguments.side),
        y_test=np.full(len(others), arguments.target),
    )
    card = json.loads(source.with_suffix(".json").read_text())
    (folder / "attack.json").write_text(json.dumps({**card, "splits": {"test": {"n": len(others)}}}))
    return ZeroShotImageClassification(name="attack", dataset=str(folder / "attack.npz"))


def measured(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Row of the table -> accuracy of each task, and attack success."""
    names = [arguments.attacked, *arguments.others]
    tasks = {name: ZeroShotImageClassification(name=name, dataset=name) for name in names}
    base = load(f"{EMBEDDED}/trunk")
    honest = {name: load(f"{EMBEDDED}/experts/{name}") for name in names}
    attacked = {**honest, arguments.attacked: attacked_expert(arguments)}
    rows: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as folder:
        shown = {**tasks, "attack": attack_task(arguments, Path(folder))}

        def record(row: str, model: Any) -> None:
            rows[row] = {name: each.metrics["accuracy"] for name, each in evaluate(model, shown).items()}
            print(row, rows[row], flush=True)

        record("honest expert alone", honest[arguments.attacked])
        record("attacked expert alone", attacked[arguments.attacked])
        record("`task_arithmetic` of honest experts", merged_of(honest, base, arguments.scaling_factor))
        merged = merged_of(attacked, base, arguments.scaling_factor)
        record("`task_arithmetic`", merged)
        for row, method, parameters in defences(arguments):
            models = {"merged": merged} if method.startswith("post_") else attacked
            record(row, fuse(method, models, base, tasks=tasks, **parameters))
    return rows


def merged_of(experts: dict[str, nn.Module], base: nn.Module, scaling_factor: float) -> nn.Module:
    """The experts by task arithmetic."""
    return fuse("task_arithmetic", experts, base, scaling_factor=scaling_factor)


def defences(arguments: argparse.Namespace) -> list[tuple[str, str, dict[str, Any]]]:
    """Row, method, parameters of what is compared.

    Steps are few and long: the logits of masks and the perturbations δ can go as far as in 2000 steps of
    1e-3 and 1e-4, FusionBench's defaults. "Far" lets δ go as far as a bright patch is from a dark image.
    """
    rate = round(2 / arguments.steps, 3)
    after = {"steps": arguments.steps, "learning_rate": rate, "batch_size": 8}
    concrete = {
        "mask_steps": arguments.steps,
        "mask_learning_rate": rate,
        "steps": arguments.steps // 3,
        "init_coefficient": arguments.scaling_factor,
        "batch_size": 8,
    }
    usual, far = {"perturbation_learning_rate": round(rate / 10, 4)}, {"perturbation_learning_rate": 0.05}
    return [
        ("`concrete_adamerging`", "concrete_adamerging", concrete),
        ("`safe_concrete_adamerging`", "safe_concrete_adamerging", concrete | usual),
        ("a mask alone: α = 0", "post_defense_awm", after | usual | {"adversarial_weight": 0}),
        ("`post_defense_awm`", "post_defense_awm", after | usual),
        ("`post_defense_sau`", "post_defense_sau", after | usual),
        ("the same, γ = 1, δ far", "post_defense_sau", after | far | {"shared_weight": 1}),
    ]


def table(rows: dict[str, dict[str, float]], arguments: argparse.Namespace) -> str:
    """The measured rows in percent."""
    clean = [name for name in next(iter(rows.values())) if name != "attack"]
    lines = [
        f"Attacked: {arguments.attacked}, {arguments.share:.0%} of triggered copies, a white square of "
        f"{arguments.side} x {arguments.side} of 32 x 32 pixels, class {arguments.target}. Merged with "
        f"{', '.join(arguments.others)}, λ = {arguments.scaling_factor}; {arguments.steps} steps. Percent.",
        "",
        f"| | attack success | mean accuracy | {' | '.join(clean)} |",
        "|---|" + "---|" * (2 + len(clean)),
    ]
    for row, found in rows.items():
        mean = sum(found[name] for name in clean) / len(clean)
        numbers = [found["attack"], mean, *(found[name] for name in clean)]
        lines.append(f"| {row} | {' | '.join(f'{100 * number:.1f}' for number in numbers)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--attacked", default="mnist", help="task whose expert has the backdoor")
    parser.add_argument("--others", nargs="*", default=["fashion_mnist", "letters"], help="honest experts")
    parser.add_argument("--target", type=int, default=0, help="class of the attacker's choice")
    parser.add_argument("--side", type=int, default=6, help="side of the trigger in pixels")
    parser.add_argument("--share", type=float, default=0.2, help="triggered copies, as a share of the images")
    parser.add_argument("--scaling-factor", type=float, default=0.5, help="of task arithmetic")
    parser.add_argument("--steps", type=int, default=30, help="steps on masks")
    parser.add_argument("--seed", type=int, default=0, help="of the attack")
    parser.add_argument("--quick", action="store_true", help="three steps; the table is not written")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps = 3
    torch.set_num_threads(arguments.threads)
    text = table(measured(arguments), arguments)
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "backdoors.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
