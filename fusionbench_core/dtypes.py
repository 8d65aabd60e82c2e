"""Names of tensor dtypes in safetensors files and in configs, and what they accumulate in."""

from __future__ import annotations

import torch

from fusionbench_core.errors import ConfigError

SAFETENSORS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
"""safetensors tag -> torch dtype."""

TAGS = {dtype: tag for tag, dtype in SAFETENSORS.items()}

_SHORT = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "half": "float16"}


def parse_dtype(name: str) -> torch.dtype:
    """The floating dtype called `float32`, `fp32`, `bfloat16`, `bf16`, …

    Raises:
        ConfigError: if there is no such floating dtype.
    """
    dtype = getattr(torch, _SHORT.get(name, name), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ConfigError(
            f"unknown floating dtype {name!r}",
            fix="use float32, bfloat16, float16 or float64",
            config="engine.dtype",
        )
    return dtype


def accumulation_dtype(dtype: torch.dtype, wanted: torch.dtype = torch.float32) -> torch.dtype:
    """What arithmetic on `dtype` runs in: at least fp32, and never less than the input has."""
    return torch.float64 if torch.float64 in (dtype, wanted) else torch.float32


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")
