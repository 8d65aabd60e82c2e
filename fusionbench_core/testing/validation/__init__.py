"""Validate a plugin as its users get it: built, installed into clean environments, checked and tested."""

from fusionbench_core.testing.validation.report import Run, Validation
from fusionbench_core.testing.validation.session import validate

__all__ = ["Run", "Validation", "validate"]
