"""A method, as checks look at it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fusionbench_core.errors import UnsupportedArchitecture
from fusionbench_core.testing.check import Inapplicable, Kind
from fusionbench_core.testing.subject import Subject

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fusionbench_core.methods import Method
    from fusionbench_core.tasks import Task
    from fusionbench_core.testing.picture import Picture
    from fusionbench_core.testing.zoo import Case


@dataclasses.dataclass(frozen=True)
class MethodSubject(Subject):
    """A fusion method, and how to run it on the zoo."""

    kind: Kind = dataclasses.field(init=False, default="method")

    def example(self, models: Sequence[str]) -> dict[str, Any]:
        """The parameters that its author gives for a pool of these models; none by default."""
        return dict(self.cls.example(tuple(models)))

    def method(self, models: Sequence[str] = (), **parameters: Any) -> Method:
        """The method, with its example's parameters and these.

        Raises:
            Inapplicable: if the example alone cannot be built, which a check of its own says.
        """
        try:
            return self.cls.model_validate({**self.example(models), **parameters})
        except ValueError:
            if parameters:
                raise
            raise Inapplicable("it cannot be built with its example's parameters") from None

    @cached_property
    def capabilities(self) -> Any:
        """What it declares with the parameters of its example for three models (or as many as it takes)."""
        from fusionbench_core.testing.zoo import NAMES

        return self.method(NAMES[: self.count()]).capabilities

    def count(self, wanted: int = 3) -> int:
        """As many models as `wanted`, or the nearest number that it takes."""
        declared = self.record.capabilities
        count = max(wanted, declared.min_models)
        return count if declared.max_models is None else min(count, declared.max_models)

    @property
    def streams(self) -> bool:
        """Whether it is a tensor method that needs nothing but tensors: runs on bare state dicts."""
        from fusionbench_core.methods import TensorMethod

        return issubclass(self.cls, TensorMethod) and not self.record.capabilities.statistics

    @property
    def gives_weights(self) -> bool:
        """Whether the result is weights of the same architecture."""
        return self.record.capabilities.output == "weights"

    def needs_weights(self) -> None:
        """Leave a check that is about weights.

        Raises:
            Inapplicable: if the method gives a module or a predictor.
        """
        if not self.gives_weights:
            raise Inapplicable(f"it gives a {self.record.capabilities.output}, not weights")

    def needs_streaming(self) -> None:
        """Leave a check that is about methods the engine streams.

        Raises:
            Inapplicable: if it is none.
        """
        if not self.streams:
            raise Inapplicable("it is no method that the engine streams tensor by tensor")

    @property
    def plainest(self) -> str:
        """The plainest architecture of the zoo that the method is for."""
        return getattr(self.cls, "example_architecture", "mlp")

    def case(self, name: str = "mlp", *, count: int = 3, **options: Any) -> Case:
        """A case of the zoo with as many models as the method takes; the plainest one by default."""
        from fusionbench_core.testing.zoo import case

        return case(self.plainest if name == "mlp" else name, count=self.count(count), **options)

    def fuse(self, case: Case, **options: Any) -> dict[str, Tensor]:
        """Fuse a case of the zoo as it is: the result as a state dict. Options as of :meth:`run`."""
        if self.streams:
            models, base = case.states()
            return self.run(models, base, **options)
        return self.run(case.models, case.base, tasks=case.tasks, **options)

    def run(
        self,
        models: Mapping[str, Any],
        base: Any = None,
        *,
        tasks: Mapping[str, Task] | None = None,
        parameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        """Fuse state dicts or modules; the result as a state dict.

        Args:
            models: Name -> state dict, or module.
            base: The base; left out where the method forbids one.
            tasks: Given to methods that ask for tasks or statistics.
            parameters: Parameters on top of the example's.
            options: Further arguments of `fusionbench_core.fuse`, e.g. `seed`, `engine`.

        Raises:
            Inapplicable: if it refuses this architecture, and that is another than the plainest.
        """
        fused = self.raw(models, base, tasks=tasks, parameters=parameters, **options)
        return fused if isinstance(fused, dict) else dict(fused.state_dict())

    def raw(
        self,
        models: Mapping[str, Any],
        base: Any = None,
        *,
        tasks: Mapping[str, Task] | None = None,
        parameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """What `fusionbench_core.fuse` gives: a state dict or a module. Arguments as of :meth:`run`."""
        from fusionbench_core.api import fuse
        from fusionbench_core.testing.sandbox import global_state
        from fusionbench_core.testing.zoo import ARCHITECTURES

        declared = self.record.capabilities
        if declared.base == "forbidden":
            base = None
        if tasks is not None and (declared.tasks or declared.statistics):
            options["tasks"] = tasks
        method = self.method(tuple(models), **(parameters or {}))
        before = None if "first_traces" in self.__dict__ else global_state()
        try:
            return fuse(method, models=dict(models), base=base, **options)
        except UnsupportedArchitecture as error:
            # Methods about some kind of layer may refuse models without it, but not the plainest ones.
            if any(isinstance(model, ARCHITECTURES[self.plainest]) for model in models.values()):
                raise
            raise Inapplicable(f"it refuses models of this architecture: {error.what}") from error
        finally:
            if before is not None:
                self.__dict__["first_traces"] = (before, global_state())

    def fused(self, case: str = "mlp", dtype: str = "float32") -> dict[str, Tensor]:
        """What :meth:`fuse` gives for a case as it is, once for all checks that only look at it."""
        import torch

        made = self.__dict__.setdefault("fused_before", {})
        if (case, dtype) not in made:
            fused = self.fuse(self.case(case, dtype=getattr(torch, dtype)))
            # Copies: whatever the method keeps of a result, and does to it in later runs, is not seen here.
            made[case, dtype] = {name: tensor.clone() for name, tensor in fused.items()}
        return dict(made[case, dtype])

    @cached_property
    def pictured(self) -> Picture:
        """What `isolated` gives for the plainest case, once for all checks that compare others with it."""
        from fusionbench_core.testing.picture import isolated

        return {name: tensor.clone() for name, tensor in isolated(self, self.case()).items()}

    @cached_property
    def first_traces(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The global state before and after it fused for the first time: a setting is changed only once."""
        self.fuse(self.case())
        return self.__dict__["first_traces"]

    def overriding(self, **functions: Any) -> MethodSubject:
        """The same method with some functions of its class replaced, to watch what goes in and comes out."""
        twin = dataclasses.replace(self)
        # A cached property: found before the record's own class is looked up.
        twin.__dict__["cls"] = type(
            self.cls.__name__, (self.cls,), {"__module__": self.cls.__module__, **functions}
        )
        return twin

    def outputs(self, module: nn.Module, case: Case) -> dict[str, Tensor]:
        """Task name -> logits `(n, classes)` of a fused module on the case's test data."""
        import torch

        from fusionbench_core.tasks.attach import attach

        found = {}
        with torch.no_grad():
            for name, task in case.tasks.items():
                batches = list(task.batches("test", labelled=False))
                attached = attach(task, module).eval()
                found[name] = torch.cat([attached(**batch.inputs) for batch in batches])
        return found
