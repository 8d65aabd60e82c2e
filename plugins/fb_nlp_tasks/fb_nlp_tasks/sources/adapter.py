"""A LoRA adapter on disk: its settings, checked, and its tensors by the module that they belong to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fusionbench_core import Checkpoint, CorruptFile, MissingCapability, NotFound, open_checkpoint

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

# Settings that make the adapted model something else than W + s B A, or change the base itself.
_OTHER_KINDS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "target_parameters",
    "trainable_token_indices",
    "layer_replication",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "loftq_config",
)
_BASE_CHANGING_INITS = ("pissa", "olora", "loftq", "corda", "lora_ga")

_FACTOR = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<factor>A|B)\.(?P<kind>weight|bias)|lora_embedding_(?P<embedding>A|B))\Z"
)


@dataclass
class Factors:
    """Names, in the adapter file, of the low-rank factors of one module.

    Attributes:
        a: Factor A, `(r, in)`.
        b: Factor B, `(out, r)`.
        bias: Bias of B, `(out,)`, or None.
        embedding: Whether the module is an embedding, whose weight is `(in, out)`.
    """

    a: str = ""
    b: str = ""
    bias: str | None = None
    embedding: bool = False


@dataclass(frozen=True)
class Adapter:
    """An adapter whose every tensor is understood.

    Attributes:
        directory: Holds `adapter_config.json`.
        config: Its content.
        weights: The adapter's tensors.
        factors: Module name, as the adapter says it -> its factors.
        whole: Tensor name, as the adapter says it -> name in `weights`, of tensors that replace the
            base's: modules that were trained whole, and biases.
    """

    directory: Path
    config: Mapping[str, Any]
    weights: Checkpoint
    factors: Mapping[str, Factors] = field(default_factory=dict)
    whole: Mapping[str, str] = field(default_factory=dict)

    def scaling(self, module: str) -> float:
        """What multiplies `B A` for a module: alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA."""
        rank = self.weights.info(self.factors[module].a).shape[0]
        alpha = _by_pattern(self.config.get("alpha_pattern") or {}, module, self.config["lora_alpha"])
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)


def read_adapter(directory: Path) -> Adapter:
    """Read the headers of an adapter.

    Raises:
        NotFound: if the config or the weights are missing.
        CorruptFile: if the config is malformed, or a factor lacks its partner.
        MissingCapability: if it is no plain LoRA, so that `W + s B A` would not be what it means.
    """
    config = read_adapter_config(directory)
    _check_kind(directory, config)
    file = next((directory / name for name in WEIGHTS if (directory / name).is_file()), None)
    if file is None:
        raise NotFound(f"no {WEIGHTS[0]} in {directory}", fix="point to the directory of the adapter")
    weights = open_checkpoint(file)
    factors: dict[str, Factors] = {}
    whole = {}
    for name in weights:
        inner = name.removeprefix("base_model.model.")
        match = _FACTOR.match(inner)
        if match:
            _file_factor(factors.setdefault(match["module"], Factors()), match, name)
        elif ".lora_" in inner or "lora_magnitude" in inner:
            raise _unsupported(directory, f"it holds a tensor {name!r}")
        else:
            whole[inner.replace(".base_layer.", ".")] = name
    for module, pair in factors.items():
        shapes = [weights.info(name).shape for name in (pair.a, pair.b) if name]
        if len(shapes) != 2:
            raise CorruptFile(f"factor A or B of {module} is missing", file=file)
        if any(len(shape) != 2 for shape in shapes):
            raise _unsupported(directory, f"{module} is a convolution, or its factors are not matrices")
        if shapes[0][0] != shapes[1][1]:
            raise CorruptFile(f"the factors of {module} have different ranks", file=file, why=f"{shapes}")
    return Adapter(directory, config, weights, factors, whole)


def read_adapter_config(directory: Path) -> dict[str, Any]:
    """The content of `adapter_config.json`.

    Raises:
        NotFound: if there is none.
        CorruptFile: if it is not a JSON object.
    """
    file = directory / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"no {CONFIG} in {directory}", fix="point to the directory of the adapter") from None
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{CONFIG} is not valid JSON", file=file, why=str(error)) from error
    if not isinstance(config, dict):
        raise CorruptFile(f"{CONFIG} is not a JSON object", file=file)
    return config


def _file_factor(factors: Factors, match: re.Match, name: str) -> None:
    letter = match["factor"] or match["embedding"]
    factors.embedding |= match["embedding"] is not None
    if match["kind"] == "bias":
        factors.bias = name
    elif letter == "A":
        factors.a = name
    else:
        factors.b = name


def _check_kind(directory: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _unsupported(directory, f"its peft_type is {kind!r}")
    for setting in _OTHER_KINDS:
        if config.get(setting):
            raise _unsupported(directory, f"it uses {setting}={config[setting]!r}")
    init = str(config.get("init_lora_weights", True)).lower()
    if init.startswith(_BASE_CHANGING_INITS):
        raise MissingCapability(
            "this adapter belongs to a changed base",
            adapter=directory,
            why=f"init_lora_weights={init!r} moved a part of the base's weights into the adapter",
            fix="save it again with `path_initial_model_for_weight_conversion`, which makes it a plain LoRA",
        )
    if not isinstance(config.get("lora_alpha"), (int, float)):
        raise CorruptFile(f"{CONFIG} has no number lora_alpha", file=directory / CONFIG)


def _unsupported(directory: Path, why: str) -> MissingCapability:
    return MissingCapability(
        "only plain LoRA adapters can be opened in delta space",
        adapter=directory,
        why=why,
        fix="merge it into its base with peft (`merge_and_unload`), save that, and use the saved model",
    )


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
