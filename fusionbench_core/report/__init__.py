"""What a run measured, and its pictures: JSON, Markdown, one HTML file, terminal.

Nothing here imports torch, so that `fb` shows a finished run at once.
"""

from __future__ import annotations

from fusionbench_core.report.details import curve, matrix
from fusionbench_core.report.report import RESERVED, SCHEMA_VERSION, Report, check_task_names
from fusionbench_core.report.summary import plain_table, summary_facts, summary_lines, terminal_chart
from fusionbench_core.report.write import FORMATS, read_report, write_comparison, write_reports

__all__ = [
    "FORMATS",
    "RESERVED",
    "SCHEMA_VERSION",
    "Report",
    "check_task_names",
    "curve",
    "matrix",
    "plain_table",
    "read_report",
    "summary_facts",
    "summary_lines",
    "terminal_chart",
    "write_comparison",
    "write_reports",
]
