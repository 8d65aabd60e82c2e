"""Every task to its own model."""

from __future__ import annotations

from fb_ensemble.builder import make_task_router
from fb_ensemble.ensemble import MemberMethod, order_of, referring
from fb_ensemble.members import members_of
from fb_ensemble.records import TASK_ROUTING
from fusionbench_core import ConfigError, Fused, FusionJob, ModelPool, implements


@implements(TASK_ROUTING)
class TaskRouting(MemberMethod):
    r"""For each task the model that was fine-tuned on it.

    $$y = f_{t(k)}(x)$$

    for an input of task $k$, whose model $t(k)$ has its name, or is mapped to it by `modelpool.data`.

    Notes:
        The result must be told the task: `fused.for_task(name)`. Task pools do, and the report says so.
        It is what fusing is measured against: no interference, the cost of one model to run and of all of
        them to keep. A task that no model is for is refused.
    """

    def fuse(self, job: FusionJob) -> Fused:
        routes = _routes(job.pool)
        return referring(
            members_of(job.pool, order_of(self, job.pool), self.in_memory),
            make_task_router,
            "task_router",
            details={"routes": routes},
            in_memory=self.in_memory,
            routes=routes,
        )


def _routes(pool: ModelPool) -> dict[str, str]:
    """Task -> name of its model.

    Raises:
        ConfigError: if several models are for one task.
    """
    routes: dict[str, str] = {}
    for name in sorted(pool.names):
        task = pool.task_of(name)
        if task in routes:
            raise ConfigError(
                f"the models {routes[task]!r} and {name!r} are both for the task {task!r}",
                config="modelpool.data",
                why="each task is routed to one model",
                fix="leave out one of them, or fuse them first",
            )
        routes[task] = name
    return routes
