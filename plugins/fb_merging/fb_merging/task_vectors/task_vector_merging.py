"""Sparsify, combine and scale task vectors: the general composition."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from fb_merging.operations import native
from fb_merging.operations.magnitude import MagnitudeThreshold
from fb_merging.operations.per_model import Numbers, is_list, values_of, weight_each
from fb_merging.task_vectors.combiners import AnyCombiner, Sum
from fb_merging.task_vectors.records import TASK_VECTOR_MERGING
from fb_merging.task_vectors.sparsifiers import AnySparsifier, Bounds, Sparsifier, localities
from fusionbench_core import Capabilities, Law, Survey, TensorGroup, TensorMethod, implements


def _named(choice: Any) -> Any:
    return {"name": choice} if isinstance(choice, str) else choice


def _steps(choice: Any) -> Any:
    return [_named(step) for step in choice] if isinstance(choice, (list, tuple)) else [_named(choice)]


@implements(TASK_VECTOR_MERGING)
class TaskVectorMerging(TensorMethod):
    r"""Make task vectors sparse, combine them, scale the result, add it to the base.

    $$\theta = \theta_0 + \lambda\, C\big(w_1 S(\theta_1 - \theta_0), \dots, w_T S(\theta_T - \theta_0)\big)$$

    $S$ is any number of steps, one after the other, $C$ one combination. Each is a name, or a mapping of its
    name and parameters:

    - `sparsify`: `magnitude` (density, trim, rescale), `random` (density, rescale), `magprune` (density,
      epsilon, window, rescale), `breadcrumbs` (density, gamma, rescale)
    - `combine`: `sum` (normalize), `elect` (merge_func), `largest`, `active_mean`

    Notes:
        The named methods are compositions of these: TIES is `magnitude` and `elect`, `dare_ties` is `random`,
        `magnitude` and `elect`, `breadcrumbs` is `breadcrumbs` and `sum`. Without any parameter it is task
        arithmetic. Densities and weights are one number for all models, a list in the order of the config,
        or a mapping of the models' names.

    Reference:
        Ilharco et al., Editing Models with Task Arithmetic, ICLR 2023, arXiv:2212.04089.
    """

    sparsify: Annotated[tuple[AnySparsifier, ...], BeforeValidator(_steps)] = Field(
        default=(),
        description="steps that make task vectors sparse: a name, {name, …}, or a list of them",
    )
    combine: Annotated[AnyCombiner, BeforeValidator(_named)] = Field(
        default=Sum(), description="how the task vectors become one: a name, or {name, …}"
    )
    weights: Numbers = weight_each()
    scaling_factor: float = Field(default=0.3, description="λ: multiplies the merged task vector")

    @property
    def capabilities(self) -> Capabilities:
        """The record's, with what the chosen steps need."""
        ordered = is_list(self.weights) or any(step.ordered for step in self.sparsify)
        capabilities = self.record.capabilities
        return dataclasses.replace(
            capabilities,
            locality=localities(self.sparsify),
            surveys=2 * sum(step.survey() is not None for step in self.sparsify),
            random=any(step.random for step in self.sparsify),
            ordered=ordered,
            laws=capabilities.laws - {Law.PERMUTATION} if ordered else capabilities.laws,
        )

    def check(self, models: Sequence[str]) -> None:
        for step in self.sparsify:
            step.check(models)
        self.combine.check(values_of(self.weights, models, "weights"))

    def survey(self) -> Survey | None:
        return _survey_of(self.sparsify, ())

    def merge(self, group: TensorGroup) -> Tensor:
        merged = self._from_stored(group)
        if merged is None:
            merged = torch.add(group.base, self.merged_task_vector(group), alpha=self.scaling_factor)
        return merged

    def merged_task_vector(self, group: TensorGroup) -> Tensor:
        """What is scaled and added to the base. Leaves the weighted sparse task vectors in `group.deltas`."""
        _sparsify(group, self.sparsify, group.survey or ())
        weights = values_of(self.weights, group.names, "weights")
        group.deltas = [d if w == 1 else d * w for d, w in zip(group.deltas, weights)]
        return self.combine.apply(group.deltas, weights)

    def _from_stored(self, group: TensorGroup) -> Tensor | None:
        """The same, without any task vector in memory; None where that cannot be."""
        merge_func = self.combine.in_one_pass
        if merge_func is None or (reading := _reading(group, self.sparsify)) is None:
            return None
        library, source = reading
        bounds: Bounds | None = Bounds()
        if self.sparsify:
            found = (group.survey or (None,))[-1]
            bounds = self.sparsify[-1].bounds(group, library, source, found)
        if bounds is None:
            return None
        weights = values_of(self.weights, group.names, "weights")
        merged = native.trim_and_elect(
            library,
            source,
            merge_func,
            thresholds=bounds.low,
            ceilings=bounds.high,
            factors=weights,
            weights=weights,
            divisor=self.combine.divisor(weights),
            scale=self.scaling_factor,
        )
        return None if merged is None else merged.view(group.piece_shape)


@dataclasses.dataclass(frozen=True)
class StepSurvey(Survey):
    """The surveys of several steps, each on task vectors that the steps before it have made sparse.

    The result holds one entry for each step, None for those without a survey.
    """

    steps: tuple[Sparsifier, ...]
    found: tuple[Any, ...]
    current: Survey

    def observe(self, group: TensorGroup) -> Any:
        before = self.steps[: len(self.found)]
        seen = self._observe_stored(group, before)
        if seen is None:
            _sparsify(group, before, self.found)
            seen = self.current.observe(group)
        return seen

    def _observe_stored(self, group: TensorGroup, before: Sequence[Sparsifier]) -> Any:
        """The same, without any task vector in memory; None where that cannot be."""
        drop_alone = [step.random for step in before] == [True]
        if not drop_alone or not isinstance(self.current, MagnitudeThreshold):
            return None
        reading = _reading(group, before)
        return None if reading is None else self.current.observe_stored(group, *reading)

    def advance(self, total: Any) -> Survey | tuple[Any, ...]:
        state = self.current.advance(total)
        if isinstance(state, Survey):
            return dataclasses.replace(self, current=state)
        found = (*self.found, state)
        return _survey_of(self.steps, found) or found + (None,) * (len(self.steps) - len(found))


def _survey_of(steps: tuple[Sparsifier, ...], found: tuple[Any, ...]) -> Survey | None:
    """The survey of the first step that has one, among those of which nothing is found yet."""
    for step in steps[len(found) :]:
        survey = step.survey()
        if survey is not None:
            return StepSurvey(steps, found, survey)
        found = (*found, None)
    return None


def _reading(group: TensorGroup, steps: Sequence[Sparsifier]) -> tuple[ctypes.CDLL, native.Source] | None:
    """The functions in C, and the models that they read, less what the first step drops of them at random.

    None where they cannot do these steps: they can drop at random, then trim to bounds, or one of both.
    """
    fits = [step.random for step in steps] in ([], [True], [False], [True, False])
    entries = math.prod(group.piece_shape) * len(group.names)
    able = entries and fits and all(step.in_one_pass for step in steps)
    library = native.library_for(entries) if able else None
    pieces = group.stored() if library else None
    if library is None or pieces is None:
        return None
    if not (steps and steps[0].random):
        return library, native.Source(pieces)
    drops = steps[0].drops(group, library, pieces)
    return None if drops is None else (library, native.Source(pieces, drops))


def _sparsify(group: TensorGroup, steps: Sequence[Sparsifier], found: Sequence[Any]) -> None:
    """Replace the group's task vectors by sparse ones."""
    for index, step in enumerate(steps):
        group.deltas = step.apply(group, found[index] if found else None)
