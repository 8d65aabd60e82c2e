"""The directory of a run: everything that goes in, happens and comes out, resumable."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from fusionbench_core.config.schema import RunConfig
from fusionbench_core.errors import NotFound, OutputError
from fusionbench_core.files import is_leftover, output_error, write_atomically

CONFIG = "config.yaml"
PLAN = "plan.json"
DETAILS = "details.json"


class RunDirectory:
    """`config.yaml`, `plan.json`, `environment.json`, `log.txt`, `model/`, `results/`, `report.*`.

    `adaptation/` holds what an interrupted training goes on with.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, config: RunConfig, label: str) -> RunDirectory:
        """A new directory: the config's `output_dir`, else `runs/LABEL-DATE-TIME`.

        Raises:
            OutputError: if it exists and is not empty, or cannot be made.
        """
        if config.output_dir:
            path = Path(config.output_dir)
        else:
            path = Path("runs") / f"{label}-{datetime.now():%Y%m%d-%H%M%S}"
            number = 2
            while path.exists():
                path = path.with_name(f"{path.name.partition('_')[0]}_{number}")
                number += 1
        try:
            if path.exists() and (not path.is_dir() or any(not is_leftover(file) for file in path.iterdir())):
                raise OutputError(
                    f"the output directory {path} exists and is not empty",
                    fix=f"choose another one, remove it, or go on with it: fb run --resume {path}",
                )
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK):
                raise PermissionError(f"no permission to write in {path}")
            directory = cls(path)
            directory.write_config(config)
        except OSError as error:
            raise OutputError(
                f"cannot make the output directory {path}",
                why=str(error),
                fix="choose another: output_dir=PATH",
            ) from error
        return directory

    @classmethod
    def resume(cls, path: Path) -> RunDirectory:
        """An existing run directory.

        Raises:
            NotFound: if it is none.
        """
        if not (path / CONFIG).is_file():
            raise NotFound(
                f"{path} is no run directory",
                why=f"it holds no {CONFIG}",
                fix="give the directory that `fb run` printed",
            )
        return cls(path)

    @property
    def config_file(self) -> Path:
        return self.path / CONFIG

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def results(self) -> Path:
        return self.path / "results"

    @property
    def adaptation(self) -> Path:
        return self.path / "adaptation"

    def write_config(self, config: RunConfig) -> None:
        """Write the composed config: `fb run --config-path FILE` runs it again."""
        values = config.model_dump(mode="json", exclude={"output_dir"})
        write_atomically(self.config_file, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))

    def read_config(self) -> dict[str, Any]:
        """The composed config of this run."""
        return yaml.safe_load(self.config_file.read_text(encoding="utf-8"))

    def write_json(self, name: str, data: Mapping[str, Any]) -> None:
        """Write one JSON file at top level."""
        write_atomically(self.path / name, json.dumps(data, indent=2) + "\n")

    def write_plan(self, summary: Mapping[str, Any]) -> None:
        """Keep the plan's overview."""
        self.write_json(PLAN, summary)

    def planned(self) -> str | None:
        """The key of the plan that was made when this run was started, None if it came not so far."""
        try:
            return json.loads((self.path / PLAN).read_text(encoding="utf-8"))["key"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def inputs(self) -> dict[str, Any] | None:
        """What the models were told by when this run was planned; None if it is not known."""
        try:
            return json.loads((self.path / PLAN).read_text(encoding="utf-8"))["inputs"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def fused(self) -> bool:
        """Whether the fusing stage finished."""
        return (self.path / DETAILS).is_file()

    def write_details(self, details: Mapping[str, Any], adaptation: Mapping[str, Any]) -> None:
        """Keep what the method said about itself; marks the fusing stage as finished."""
        self.write_json(DETAILS, {"details": details, "adaptation": adaptation})

    def read_details(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The inverse of :meth:`write_details`."""
        data = json.loads((self.path / DETAILS).read_text(encoding="utf-8"))
        return data["details"], data["adaptation"]

    @contextmanager
    def log(self) -> Iterator[logging.Logger]:
        """The run's log file as a handler of the logger `fusionbench`."""
        logger = logging.getLogger("fusionbench")
        level = logger.level
        handler = _LogFile(self.path / "log.txt")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(min(level or logging.INFO, logging.INFO))
        try:
            yield logger
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            handler.close()


class _LogFile(logging.FileHandler):
    """A log that cannot be written, as on a full disk, neither stops a run nor hides what did."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, encoding="utf-8")
        except OSError as error:
            raise output_error(error, path) from error

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):
            super().close()
