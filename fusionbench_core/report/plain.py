"""Values as JSON has them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any


def plain(value: Any) -> Any:
    """A copy of `value` made of dict, list, str, int, float, bool and None only.

    NaN and infinities become None, for JSON has neither. Tensors and arrays become nested lists, sets
    are sorted, and whatever else there is becomes its string: a report never fails for a detail.

    >>> plain({"loss": float("nan"), "shape": (2, 3)})
    {'loss': None, 'shape': [2, 3]}
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, PurePath):
        return value.as_posix()
    to_list = getattr(value, "tolist", None)  # torch and numpy, neither of which is imported here
    return plain(to_list()) if callable(to_list) else str(value)
