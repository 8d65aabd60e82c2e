"""Statistics of models on data: collected once, cached by content, read by methods."""

from fusionbench_core.statistics.statistic import Statistic

__all__ = ["Statistic"]
