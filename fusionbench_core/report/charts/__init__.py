"""Pictures as inline SVG, made by pure functions from numbers.

Each works without a style sheet; the pages' style sheet recolours them for dark mode by class.
Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from fusionbench_core.report.charts.bars import Bar, grouped_bars
from fusionbench_core.report.charts.dots import dot_chart
from fusionbench_core.report.charts.heatmap import heat_map
from fusionbench_core.report.charts.lines import line_chart
from fusionbench_core.report.charts.radar import radar

__all__ = ["Bar", "dot_chart", "grouped_bars", "heat_map", "line_chart", "radar"]
