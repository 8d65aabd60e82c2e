"""Merge into memory: state dict out."""

from __future__ import annotations

from torch import Tensor

from fusionbench_core.engine.merge import Statistics, StreamingMerge
from fusionbench_core.engine.options import EngineOptions
from fusionbench_core.engine.plan import Plan, make_plan
from fusionbench_core.engine.sink import MemorySink
from fusionbench_core.methods.method import TensorMethod
from fusionbench_core.pools.pool import ModelPool


def merge_in_memory(
    method: TensorMethod,
    pool: ModelPool,
    *,
    options: EngineOptions | None = None,
    seed: int = 0,
    statistics: Statistics | None = None,
    plan: Plan | None = None,
) -> dict[str, Tensor]:
    """The state dict that `method` makes of the pool's models, by its `plan` if there is one already.

    Raises:
        FusionError: as `make_plan` and `StreamingMerge.run` do.
    """
    options = options or EngineOptions()
    plan = plan or make_plan(method, pool, options, seed=seed)
    sink = MemorySink(plan)
    StreamingMerge(method, plan, pool, sink, options=options, seed=seed, statistics=statistics).run()
    state = sink.state_dict()
    # In the names' order of the reference, where tied ones need not come last.
    return {**{name: state[name] for name in pool.reference_model.checkpoint if name in state}, **state}
