"""Whether cost grows linearly with the number of tensors, and what a plan of very large models reads.

python benchmarks/scaling.py [--counts 5000 10000 20000 40000]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from fusionbench_core import TensorInfo, open_checkpoint
from fusionbench_core.checkpoints.writer import SafetensorsWriter
from fusionbench_core.engine.merge import StreamingMerge
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.plan import make_plan
from fusionbench_core.pools.pool import ModelPool, PooledModel
from fusionbench_core.registry import default_registry

RESULTS = Path(__file__).parent / "results"
METHODS = {"simple_average": {}, "ties_merging": {"density": 0.2}}
SHARD = 5 * 10**9


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[5_000, 10_000, 20_000, 40_000])
    arguments = parser.parse_args()
    rows = [_merged(count) for count in arguments.counts]
    result = {"tensors": rows, "plan": _planned(models=9, layers=80, hidden=8192)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")
    text = _markdown(result)
    (RESULTS / "scaling.md").write_text(text)
    print(text)


def _merged(count: int) -> dict[str, float]:
    """Milliseconds a tensor, for so many tensors of 16 x 16 in a base and three models."""
    layout = [(f"layers.{index}.weight", TensorInfo((16, 16), torch.float32)) for index in range(count)]
    row: dict[str, float] = {"tensors": count}
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / name for name in ("base", "a", "b", "c")]
        for seed, path in enumerate(paths):
            generator = torch.Generator().manual_seed(seed)
            path.mkdir()
            writer = SafetensorsWriter(path, layout)
            for name, info in layout:
                writer.write(name, 0, torch.randn(info.numel, generator=generator))
            writer.finish()
        for name, parameters in METHODS.items():
            method = default_registry().load("method", name)(**parameters)
            options = EngineOptions(threads=2)
            began = time.process_time()
            base, *models = (PooledModel(path.name, content=open_checkpoint(path)) for path in paths)
            pool = ModelPool({model.name: model for model in models}, base)
            plan = make_plan(method, pool, options)
            planned = time.process_time() - began
            output = Path(directory) / name
            output.mkdir()
            writer = SafetensorsWriter(output, [(step.name, step.info) for step in plan])
            StreamingMerge(method, plan, pool, writer, options=options).run()
            writer.finish()
            row[f"{name}: plan"] = 1000 * planned / count
            row[f"{name}: merge"] = 1000 * (time.process_time() - began - planned) / count
    return row


def _planned(models: int, layers: int, hidden: int) -> dict[str, float]:
    """A plan of sharded checkpoints whose weights are holes: seconds, and bytes that were on the disk."""
    shapes = {"embed": (128_256, hidden), "lm_head": (128_256, hidden)}
    for layer in range(layers):
        shapes |= {f"layers.{layer}.attn.{which}": (hidden, hidden) for which in "qo"}
        shapes |= {f"layers.{layer}.attn.{which}": (hidden // 8, hidden) for which in "kv"}
        shapes |= {f"layers.{layer}.mlp.{which}": (hidden * 7 // 2, hidden) for which in ("up", "gate")}
        shapes |= {f"layers.{layer}.mlp.down": (hidden, hidden * 7 // 2)}
    layout = [(name, TensorInfo(shape, torch.bfloat16)) for name, shape in shapes.items()]
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / str(number) for number in range(models)]
        for path in paths:
            path.mkdir()
            SafetensorsWriter(path, layout, max_shard_size=SHARD, reserve=False).finish()
        files = [file for path in paths for file in path.iterdir()]
        began = time.perf_counter()
        base, *others = (PooledModel(path.name, content=open_checkpoint(path)) for path in paths)
        plan = make_plan(
            default_registry().load("method", "ties_merging")(),
            ModelPool({model.name: model for model in others}, base),
        )
        return {
            "models": models,
            "files": len(files),
            "parameters_each": sum(info.numel for _, info in layout),
            "bytes": sum(file.stat().st_size for file in files),
            "bytes_on_disk": sum(file.stat().st_blocks * 512 for file in files),
            "bytes_to_read": plan.read_bytes,
            "seconds": round(time.perf_counter() - began, 3),
        }


def _markdown(result: dict) -> str:
    names = [name for name in result["tensors"][0] if name != "tensors"]
    lines = [
        "Milliseconds of processor time a tensor of 16 x 16, of a base and three models.",
        "",
        "| tensors | " + " | ".join(names) + " |",
        "|--:|" + "--:|" * len(names),
    ]
    for row in result["tensors"]:
        lines.append(f"| {row['tensors']:,} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |")
    plan = result["plan"]
    lines += [
        "",
        f"Planning TIES over {plan['models']} models of "
        f"{plan['parameters_each'] / 1e9:.0f} billion parameters, "
        f"{plan['bytes'] / 1e12:.2f} TB in {plan['files']} shards, took {plan['seconds']:.2f} s.",
        f"Their weights are holes: {plan['bytes_on_disk'] / 1e6:.1f} MB, the headers, were on the disk.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
