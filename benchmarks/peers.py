"""Other merging tools, each installed into an environment of its own and run as a whole process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models import Models

ENVIRONMENTS = Path(__file__).parent / ".envs"

# Beside fusion_bench's own command line this is the shortest way to the same merge.
_FUSION_BENCH = """
import json, sys
from pathlib import Path
from fusion_bench.method import SimpleAverageAlgorithm, TaskArithmeticAlgorithm, TiesMergingAlgorithm
from fusion_bench.modelpool import BaseModelPool, CausalLMPool

name, output, paths, source = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
if name == "average":
    method = SimpleAverageAlgorithm()
elif name == "task_arithmetic":
    method = TaskArithmeticAlgorithm(scaling_factor=0.3)
elif name == "iso_c":
    from fusion_bench.method.isotropic_merging import IsotropicMergingInCommonSubspace

    method = IsotropicMergingInCommonSubspace(scaling_factor=1.0, exclude_keys=[])
elif name == "iso_cts":
    from fusion_bench.method.isotropic_merging import IsotropicMergingInCommonAndTaskSubspace

    method = IsotropicMergingInCommonAndTaskSubspace(
        scaling_factor=1.0, common_space_fraction=0.8, exclude_keys=[]
    )
elif name == "tsv_merging":
    from fusion_bench.method.task_singular_vector import TaskSingularVectorMerging

    method = TaskSingularVectorMerging(alpha=1.0, exclude_keys=[])
else:
    method = TiesMergingAlgorithm(scaling_factor=1.0, threshold=20, remove_keys=[], merge_func="mean")
if source == "causal_lm":
    pool = CausalLMPool(models=paths, tokenizer=None, load_lazy=False)
else:
    from transformers import CLIPVisionModel

    pool = BaseModelPool({key: CLIPVisionModel.from_pretrained(path) for key, path in paths.items()})
method.run(pool).save_pretrained(output)
"""


@dataclass(frozen=True)
class Peer:
    """A tool to compare with.

    Attributes:
        name: Name in the tables.
        requirement: What pip installs.
        extra: What it needs besides, where its own requirements do not say.
        command: `(python, method, models, output) -> command line`.
    """

    name: str
    requirement: str
    command: Callable[[Path, str, Models, Path], list[str]]
    extra: tuple[str, ...] = ()

    def install(self) -> Path:
        """The interpreter of its environment, made if it is not there.

        It sees the packages of this environment behind its own, so that torch is not installed twice.

        Raises:
            subprocess.CalledProcessError: if pip fails.
        """
        root = ENVIRONMENTS / self.requirement.replace("==", "-")
        python = root / "bin" / "python"
        if (root / "installed").exists():
            return python
        shutil.rmtree(root, ignore_errors=True)
        venv.create(root, with_pip=False, symlinks=True)
        purelib = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        (Path(purelib) / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python),
                *("install", "--quiet", self.requirement, *self.extra),
            ],
            check=True,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        (root / "installed").touch()
        return python


def _mergekit(python: Path, method: str, models: Models, output: Path) -> list[str]:
    base = {"model": str(models.base)}
    each = {
        "average": {"weight": 1.0},
        "task_arithmetic": {"weight": 1.0},
        "ties": {"weight": 1.0, "density": 0.2},
        "dare_ties": {"weight": 1.0, "density": 0.5},
        "della": {"weight": 1.0, "density": 0.5, "epsilon": 0.1},
        "breadcrumbs": {"weight": 1.0, "density": 0.2, "gamma": 0.01},
    }[method]
    config = {
        "merge_method": {"average": "linear"}.get(method, method),
        "models": [{"model": str(path), "parameters": each} for path in models.experts.values()],
        "dtype": "bfloat16" if models.source == "causal_lm" else "float32",
        **({} if method == "average" else {"base_model": base["model"]}),
        "parameters": {
            "average": {"normalize": True},
            "task_arithmetic": {"normalize": False, "lambda": 0.3},
        }.get(method, {"normalize": method == "ties", "lambda": 1.0}),
    }
    file = output.parent / f"mergekit_{method}.yaml"
    file.write_text(json.dumps(config, indent=1))
    return [str(python.with_name("mergekit-yaml")), str(file), str(output), "--no-copy-tokenizer", "--quiet"]


def _fusion_bench(python: Path, method: str, models: Models, output: Path) -> list[str]:
    paths = {"_pretrained_": str(models.base), **{name: str(path) for name, path in models.experts.items()}}
    return [str(python), "-c", _FUSION_BENCH, method, str(output), json.dumps(paths), models.source]


KNOWN = {
    "mergekit 0.1.5": ("average", "task_arithmetic", "ties", "dare_ties", "della", "breadcrumbs"),
    "fusion_bench 0.2.33": ("average", "task_arithmetic", "ties", "iso_c", "iso_cts", "tsv_merging"),
}
"""Peer -> the methods that it is measured with."""

PEERS = (
    Peer("mergekit 0.1.5", "mergekit==0.1.5", _mergekit),
    Peer("fusion_bench 0.2.33", "fusion-bench==0.2.33", _fusion_bench),
)
