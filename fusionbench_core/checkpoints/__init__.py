"""Lazy views of checkpoints: names, shapes and dtypes without reading data; tensors on demand."""

from fusionbench_core.checkpoints.checkpoint import Checkpoint, TensorInfo
from fusionbench_core.checkpoints.memory import StateDictCheckpoint
from fusionbench_core.checkpoints.opening import open_checkpoint
from fusionbench_core.checkpoints.renamed import RenamedCheckpoint
from fusionbench_core.checkpoints.safetensors_file import SafetensorsCheckpoint

__all__ = [
    "Checkpoint",
    "RenamedCheckpoint",
    "SafetensorsCheckpoint",
    "StateDictCheckpoint",
    "TensorInfo",
    "open_checkpoint",
]
