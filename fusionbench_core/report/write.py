"""Reports as files: each appears at once and whole, or not at all."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fusionbench_core.errors import ConfigError, CorruptFile, InputError, NotFound
from fusionbench_core.files import write_atomically
from fusionbench_core.report.report import Report
from fusionbench_core.suggest import did_you_mean

FORMATS = ("json", "md", "html")

if TYPE_CHECKING:
    from fusionbench_core.report.compare import Measured

Reporter = Callable[[Report, Path], Path]


def write_reports(
    report: Report,
    directory: Path | str,
    formats: Iterable[str] = FORMATS,
    reporters: Iterable[tuple[str, Reporter]] = (),
) -> dict[str, Path]:
    """Write `report.json`, `report.md` and `report.html`, and what plugins' reporters make.

    Args:
        report: What to write.
        directory: Where; made if need be.
        formats: Which of `json`, `md`, `html`.
        reporters: (name, function) pairs. One that fails, or whose import does, gives a warning:
            the run's own report never depends on a plugin.

    Returns:
        Format or reporter's name -> the file it wrote.

    Raises:
        ConfigError: if a format is unknown; nothing is written then.
        OutputError: if a file cannot be written.
    """
    wanted = tuple(dict.fromkeys(formats))
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(
                f"no report format is called {name!r}",
                why=f"formats are {', '.join(FORMATS)}",
                fix=did_you_mean(name, FORMATS),
            )
    directory = Path(directory)
    written = {name: write_atomically(directory / f"report.{name}", render(report, name)) for name in wanted}
    for name, reporter in reporters:
        try:
            written[name] = Path(reporter(report, directory))
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            warnings.warn(f"the reporter {name} failed, its report is missing ({cause})", stacklevel=2)
    return written


def write_comparison(reports: Mapping[str, Measured], directory: Path | str) -> dict[str, Path]:
    """Write `comparison.md` and `comparison.html`, see :func:`fusionbench_core.report.compare.compare`.

    Raises:
        ConfigError: if there is nothing to compare.
        OutputError: if a file cannot be written.
    """
    from fusionbench_core.report.compare import compare

    markdown, html = compare(reports)
    directory = Path(directory)
    return {
        "md": write_atomically(directory / "comparison.md", markdown),
        "html": write_atomically(directory / "comparison.html", html),
    }


def read_report(path: Path | str) -> Report:
    """Read `report.json`, given the file or the run directory that holds it.

    Raises:
        NotFound: if there is none.
        CorruptFile: if it is no report.
        InputError: if the file may not be read.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "report.json"
    try:
        return Report.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise NotFound(
            "there is no report here", file=path, fix="give a run directory, or its report.json"
        ) from None
    except OSError as error:
        raise InputError("this report cannot be read", file=path, why=str(error)) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptFile("this report cannot be read", file=path, why=str(error)) from error


def render(report: Report, form: str) -> str:
    """The text of one format."""
    if form == "json":
        return json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if form == "md":
        from fusionbench_core.report.markdown import to_markdown

        return to_markdown(report)
    from fusionbench_core.report.html import to_html

    return to_html(report)
