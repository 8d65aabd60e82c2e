"""What a step of AdaMerging costs, against its limit and against fusion_bench.

    python benchmarks/adaptation.py                    four encoders of 6 layers, 20 steps
    python benchmarks/adaptation.py --peers            fusion_bench as well
    python benchmarks/adaptation.py --layers 12 --width 768 --tasks 8

The limit is one forward and one backward pass of one model for each task, with gradients of all parameters,
on the same batches. All compute on the CPU with the same number of threads, in processes that take turns,
round by round; the first steps do not count. Seconds are those of the processor, which other programs do not
lengthen much.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from peers import PEERS

RESULTS = Path(__file__).parent / "results"

_MODELS = """
import json, sys, time
import torch
from torch import nn

layers, width, tasks, batch, steps, threads = json.loads(sys.argv[1])
torch.set_num_threads(threads)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter = nn.Linear(32, width)
        layer = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, 0.0, batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x):
        return self.encoder(self.enter(x)).mean(1)


def make(seed):
    torch.manual_seed(seed)
    return Encoder()


torch.manual_seed(0)
base, experts = make(0), [make(seed + 1) for seed in range(tasks)]
heads = [torch.randn(10, width) for _ in range(tasks)]
inputs = [torch.randn(batch, 50, 32) for _ in range(tasks)]


def entropy(logits):
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def report(times):
    print(json.dumps(times[2:]))
"""

_LIMIT = """
times = []
for _ in range(steps + 2):
    began = time.process_time()
    base.zero_grad()
    for x, head in zip(inputs, heads):
        entropy(base(x) @ head.T).backward()
    times.append(time.process_time() - began)
report(times)
"""

_OURS = """
from fb_merging.learned.adamerging import AdaMerging
from fusionbench_core import AdaptationTask, Batch, ClassificationTask, FusionJob, ModelPool, PooledModel
from fusionbench_core import TaskCard, TaskRecord


class Headed(nn.Module):
    def __init__(self, trunk, head):
        super().__init__()
        self.trunk = trunk
        self.register_buffer("head", head)

    def forward(self, x):
        return self.trunk(x) @ self.head.T


class Fixed(ClassificationTask):
    number: int
    record = TaskRecord(name="fixed", target="bench:Fixed", summary="one batch")

    def card(self):
        return TaskCard(title="", version=1, source="", licence="", splits={"validation": batch})

    def attach(self, trunk):
        return Headed(trunk, heads[self.number])

    def batches(self, split, *, labelled, limit=None, seed=None, batch_size=64):
        yield Batch({"x": inputs[self.number]}, None, torch.arange(batch))

    def fingerprint(self):
        return str(self.number)


moments = []
names = [f"t{index}" for index in range(tasks)]
pool = ModelPool(
    {name: PooledModel(name, content=expert) for name, expert in zip(names, experts)},
    PooledModel("base", content=base),
)
job = FusionJob(
    pool=pool,
    tasks={name: AdaptationTask(Fixed(name=name, number=index)) for index, name in enumerate(names)},
    on_progress=lambda done, total, text: moments.append(time.process_time()),
)
AdaMerging(steps=steps + 3, batch_size=batch).fuse(job)
report([after - before for before, after in zip(moments, moments[1:])])
"""

_FUSION_BENCH = """
from fusion_bench.models.wrappers.layer_wise_fusion import LayerWiseMergedModel, get_layer_wise_weights

count = sum(parameter.requires_grad for parameter in base.parameters())
weights = get_layer_wise_weights(num_models=tasks, num_layers=count, init_values=0.3)
module = LayerWiseMergedModel(
    layer_wise_weight=weights,
    pretrained_model=base,
    finetuned_models=experts,
    clamp_weights=False,
    tie_weights=True,
    strict=False,
)
module.merge_weights()
optimizer = torch.optim.Adam([module.merge_weight], lr=1e-3)
times = []
# As its test-time adaptation does: the losses of all tasks keep the graph of the merged weights.
for _ in range(steps + 2):
    began = time.process_time()
    for x, head in zip(inputs, heads):
        entropy(module(x) @ head.T).backward(retain_graph=True)
    optimizer.step()
    optimizer.zero_grad()
    module.merge_weights()
    times.append(time.process_time() - began)
report(times)
"""


def main() -> None:
    arguments = _arguments()
    sizes = (arguments.layers, arguments.width, arguments.tasks, arguments.batch, arguments.steps)
    programs = {"limit": (sys.executable, _LIMIT), "ours": (sys.executable, _OURS)}
    if arguments.peers:
        peer = next(peer for peer in PEERS if peer.name.startswith("fusion_bench"))
        programs[peer.name] = (str(peer.install()), _FUSION_BENCH)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(arguments.runs):
        for name, (python, program) in programs.items():
            command = [python, "-c", _MODELS + program, json.dumps([*sizes, arguments.threads])]
            shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            times[name] += json.loads(shown.splitlines()[-1])
    text = _table(times, sizes)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "adaptation.md").write_text(text)
    print(text)


def _table(times: dict[str, list[float]], sizes: tuple[int, ...]) -> str:
    layers, width, tasks, batch, _ = sizes
    medians = {name: statistics.median(each) for name, each in times.items()}
    lines = [
        f"A step of AdaMerging: {tasks} encoders, {layers} layers of width {width}, {batch} samples a task.",
        "",
        "| | seconds a step | times the limit |",
        "|---|---|---|",
        *(f"| {name} | {each:.3f} | {each / medians['limit']:.2f} |" for name, each in medians.items()),
    ]
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--layers", type=int, default=6, help="layers of each encoder")
    parser.add_argument("--width", type=int, default=384, help="width of each encoder, a multiple of 64")
    parser.add_argument("--tasks", type=int, default=4, help="models, each with a task")
    parser.add_argument("--batch", type=int, default=16, help="samples a task and step")
    parser.add_argument("--steps", type=int, default=20, help="steps a run")
    parser.add_argument("--runs", type=int, default=2, help="rounds")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--peers", action="store_true", help="compare with fusion_bench")
    return parser.parse_args()


if __name__ == "__main__":
    main()
