"""The chat template that an artefact carries."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from fusionbench_core.files import write_atomically
from fusionbench_core.pools.pool import ModelPool, PooledModel

AUTO = "auto"

_FILE = "chat_template.jinja"
_SETTINGS = "tokenizer_config.json"
_KEY = "chat_template"


def write_chat_template(pool: ModelPool, directory: Path) -> None:
    """Put the pool's chat template, if it names one, beside the tokenizer in `directory`."""
    template = _most_common(pool) if pool.chat_template == AUTO else pool.chat_template
    if template is None:
        return
    write_atomically(directory / _FILE, template)
    settings = directory / _SETTINGS
    if settings.exists():
        said = json.loads(settings.read_text(encoding="utf-8"))
        # Readers take the file; a second template in the settings would only mislead.
        if said.pop(_KEY, None) is not None:
            write_atomically(settings, json.dumps(said, indent=2, ensure_ascii=False) + "\n")


def template_of(model: PooledModel) -> str | None:
    """The chat template that comes with a model."""
    files = {asset.name: asset for asset in model.source.assets()} if model.source else {}
    if _FILE in files:
        return files[_FILE].read_text(encoding="utf-8").strip()
    said = json.loads(files[_SETTINGS].read_text(encoding="utf-8")).get(_KEY) if _SETTINGS in files else None
    if isinstance(said, list):
        said = {each.get("name"): each.get("template") for each in said}.get("default")
    return said.strip() if isinstance(said, str) and said.strip() else None


def _most_common(pool: ModelPool) -> str | None:
    """Of equally common ones, that of the base, then of the first model."""
    everyone = [*([pool.base] if pool.base else []), *pool.models.values()]
    found = Counter(template for model in everyone if (template := template_of(model)))
    return found.most_common(1)[0][0] if found else None
