"""The modules of models of several parts, by names of tensors."""

from __future__ import annotations

from collections.abc import Sequence

from fusionbench_core import ConfigError

_PATTERNS = {
    "encoder": ("encoder.*", "*.encoder.*"),
    "decoder": ("decoder.*", "*.decoder.*", "lm_head.*", "proj_out.*"),
    "shared": ("shared.*",),
    "vision_tower": ("*vision_tower.*", "*vision_model.*", "*visual.*"),
    "vision_model": ("*vision_tower.*", "*vision_model.*", "*visual.*"),
    "multi_modal_projector": ("*multi_modal_projector.*", "*visual.merger*"),
    "text_decoder": (
        "*language_model.*",
        "lm_head.*",
        "model.layers.*",
        "model.embed_tokens.*",
        "model.norm.*",
    ),
}
"""mergekit's names of modules -> shell patterns of their tensors, as transformers calls them."""


def patterns_of(module: str | None, modules: Sequence[str | None]) -> tuple[str, ...]:
    """The tensors of a module; all of them where the model has no other.

    Raises:
        ConfigError: if the module is not known.
    """
    if module is None or len(modules) == 1:
        return ()
    if module not in _PATTERNS:
        raise ConfigError(
            f"the module {module!r} is not known",
            config=f"modules.{module}",
            why=f"known are {', '.join(_PATTERNS)}",
            fix="write a config of your own: method=varied, with patterns of names under `tensors`",
        )
    return _PATTERNS[module]
