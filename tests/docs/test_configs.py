"""The configs that the pages show are valid: every name and every parameter."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pages import ROOT, blocks, pages

from fusionbench_core.config import RunConfig, compose
from fusionbench_core.plugins import load_plugins
from fusionbench_core.pools.config import build_pool
from fusionbench_core.registry import Registry, default_registry
from fusionbench_core.run import prepare
from fusionbench_core.run.comparison import CompareConfig
from fusionbench_core.run.stages import stage_order
from fusionbench_core.tasks.pool import build_task_pool

SECTIONS = ("modelpool", "taskpool", "compare")


def _shown() -> list:
    return [
        pytest.param(page, block, id=f"{page.relative_to(ROOT)}:{block.line}")
        for page in pages()
        for block in blocks(page)
        if block.language == "yaml" and any(section in yaml.safe_load(block.text) for section in SECTIONS)
    ]


@pytest.mark.parametrize(("page", "block"), _shown())
def test_the_config_is_valid(page, block, tmp_path):
    values = yaml.safe_load(block.text)
    registry = _registry(page, block, tmp_path)
    if "compare" in values:
        CompareConfig.model_validate(values["compare"])
    elif "method" in values:
        (tmp_path / "shown.yaml").write_text(block.text, encoding="utf-8")
        composed = compose([], tmp_path, "shown", registry).values
        assert stage_order(composed) if "stages" in composed else True
        for each in [*composed.pop("stages", {}).values(), composed]:
            prepare(RunConfig.model_validate(each), registry)
    else:
        if "modelpool" in values:
            build_pool(values["modelpool"], registry)
        if values.get("taskpool"):
            build_task_pool(values["taskpool"], registry)


def _registry(page: Path, block, directory: Path) -> Registry:
    """With the plugin that the page itself shows, if it shows one."""
    files = []
    for other in blocks(page):
        if other.title.endswith(".py") and "@hookimpl" in other.text and page.stem == "write_a_task":
            files.append(directory / other.title)
            files[-1].write_text(other.text, encoding="utf-8")
    return Registry(load_plugins(files=files)) if files else default_registry()
