"""The contract of fusion methods."""

from fusionbench_core.methods.conditioned import TaskConditioned
from fusionbench_core.methods.fused import Fused
from fusionbench_core.methods.group import TensorGroup
from fusionbench_core.methods.inner import AnyTensorMethod
from fusionbench_core.methods.job import FusionJob
from fusionbench_core.methods.members import LiveMembers, Members
from fusionbench_core.methods.method import Method, ModelMethod, TensorMethod
from fusionbench_core.methods.predictor import Predictor
from fusionbench_core.methods.stored import StoredPieces
from fusionbench_core.methods.survey import Survey

__all__ = [
    "AnyTensorMethod",
    "Fused",
    "FusionJob",
    "LiveMembers",
    "Members",
    "Method",
    "ModelMethod",
    "Predictor",
    "StoredPieces",
    "Survey",
    "TaskConditioned",
    "TensorGroup",
    "TensorMethod",
]
