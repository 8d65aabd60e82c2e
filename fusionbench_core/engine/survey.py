"""Surveys of a pool without a merge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from fusionbench_core.engine.merge import StreamingMerge
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.plan import make_plan
from fusionbench_core.methods.group import TensorGroup
from fusionbench_core.methods.method import TensorMethod
from fusionbench_core.methods.survey import Survey
from fusionbench_core.pools.pool import ModelPool
from fusionbench_core.records import Capabilities, MethodRecord, implements


def run_survey(
    survey: Survey,
    pool: ModelPool,
    *,
    options: EngineOptions | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Any:
    """What a survey finds out about the task vectors of a pool, entry by entry and in any size.

    Its groups are runs of entries, in the order of the models' names, with a base.

    Args:
        survey: The first round; see :class:`~fusionbench_core.Survey`.
        pool: The models, and their base.
        options: Threads, dtypes, rules.
        on_progress: Called with (tensors done, tensors in all), for each round anew.

    Raises:
        FusionError: if the models do not fit together, or hold NaN or Inf.
    """
    # Integers are not looked at, so they need not agree.
    options, method = replace(options or EngineOptions(), integers="first"), _Looking()
    merge = StreamingMerge(method, make_plan(method, pool, options), pool, _Nowhere(), options=options)
    return merge.survey(survey, on_progress)


@implements(
    MethodRecord(
        name="survey",
        target=f"{__name__}:_Looking",
        summary="looks at models, and merges nothing",
        capabilities=Capabilities(base="required"),
    )
)
class _Looking(TensorMethod):
    def merge(self, group: TensorGroup) -> Tensor:
        raise NotImplementedError


class _Nowhere:
    def write(self, name: str, start: int, values: Tensor) -> None:
        raise NotImplementedError

    def read(self, name: str) -> Tensor:
        raise NotImplementedError
