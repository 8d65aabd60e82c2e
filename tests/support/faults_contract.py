"""Methods with one fault each in what their class promises, and sound ones; all take the mean."""

from __future__ import annotations

import os
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from fusionbench_core import (
    BuilderRecord,
    Capabilities,
    Fused,
    Law,
    MethodRecord,
    ModelMethod,
    Paper,
    Predictor,
    TensorMethod,
    implements,
)

SOUP = Paper(title="Model soups", authors="Wortsman et al.", year=2022, venue="ICML", arxiv="2203.05482")


def record(target: str, *, paper: Paper | None = None, **capabilities: Any) -> MethodRecord:
    return MethodRecord(
        name="faulty",
        target=f"faults_contract:{target}",
        summary="a mean",
        capabilities=Capabilities(**capabilities),
        paper=paper,
    )


DOC = r"""The mean of all models.

    $$\theta = \frac{1}{T} \sum_t \theta_t$$
    """


class Mean(TensorMethod):
    __doc__ = DOC

    def merge(self, group):
        return torch.stack(group.models).mean(0)


SOUND = record("Sound", paper=SOUP, laws=frozenset(Law))


@implements(SOUND)
class Sound(Mean):
    r"""The mean of all models, times one.

    $$\theta = \frac{s}{T} \sum_t \theta_t$$

    Notes:
        As the paper says.

    Reference:
        Wortsman et al., Model soups, ICML 2022, arXiv:2203.05482.
    """

    class Part(BaseModel):
        """A nested model."""

        model_config = ConfigDict(frozen=True)
        kind: Literal["part"] = "part"
        size: int = Field(default=1, gt=0, description="of the part")

    factor: Literal[1, 1.0] = Field(default=1, description="multiplies the mean")
    weights: dict[str, float] | tuple[float, ...] | None = Field(default=None, description="read by nobody")
    part: Part = Field(default=Part(), description="something nested")
    enabled: bool = Field(default=True, description="read by nobody")


SOUND_MODULE = record("SoundModule", locality="model", output="predictor")


@implements(SOUND_MODULE)
class SoundModule(ModelMethod):
    r"""The mean of the outputs.

    $$y = \frac{1}{T} \sum_t f_t(x)$$
    """

    def fuse(self, job):
        members = {name: job.pool.module(name) for name in job.pool}
        return Fused.of_module(
            MeanOf(members), builder="mean_of", arguments={"members": list(members)}, tensors={}
        )


class MeanOf(Predictor):
    def combine(self, outputs):
        return outputs.mean(0)


def build_mean(context):
    return MeanOf({name: context.member(name) for name in context.arguments["members"]})


BUILDERS = (BuilderRecord(name="mean_of", target="faults_contract:build_mean", summary="means"),)


PERMUTED = record("OtherRecord", laws=frozenset({Law.PERMUTATION}))


@implements(record("OtherRecord"))
class OtherRecord(Mean):
    __doc__ = DOC


INHERITED = record("InheritsRecord", laws=frozenset({Law.PERMUTATION}))


class InheritsRecord(OtherRecord):
    __doc__ = DOC


DEFAULTS = record("NoDefaults")


@implements(DEFAULTS)
class NoDefaults(Mean):
    __doc__ = DOC
    density: float = Field(gt=0, le=1, description="fraction kept")


OUTSIDE = record("DefaultOutsideRange")


@implements(OUTSIDE)
class DefaultOutsideRange(Mean):
    __doc__ = DOC
    density: float = Field(default=20.0, gt=0, le=1, description="fraction kept, in percent by default")

    @classmethod
    def example(cls, models):
        return {"density": 0.2}


THAWED = record("Thawed")


@implements(THAWED)
class Thawed(Mean):
    __doc__ = DOC
    model_config = ConfigDict(frozen=False)
    density: float = Field(default=0.5, gt=0, le=1, description="fraction kept")


STATEFUL = record("Stateful")


@implements(STATEFUL)
class Stateful(Mean):
    __doc__ = DOC
    _coefficients: dict = PrivateAttr(default_factory=dict)


EXCLUDED = record("Excluded")


@implements(EXCLUDED)
class Excluded(Mean):
    __doc__ = DOC
    scaling_factor: float = Field(default=1.0, exclude=True, description="lost in every config")


PERCENT = record("Percent")


@implements(PERCENT)
class Percent(Mean):
    __doc__ = DOC
    density: float = Field(default=0.2, description="divided by 100 whenever it is read")

    @field_validator("density")
    @classmethod
    def _fraction(cls, value):
        return value / 100 if value > 0.3 else value / 2


SILENT = record("Undescribed")


@implements(SILENT)
class Undescribed(Mean):
    __doc__ = DOC
    density: float = Field(default=0.5, gt=0, le=1)


SWALLOWS = record("Swallows")


@implements(SWALLOWS)
class Swallows(Mean):
    __doc__ = DOC
    model_config = ConfigDict(extra="ignore")
    density: float = Field(default=0.5, gt=0, le=1, description="fraction kept")


RANGELESS = record("Rangeless")


@implements(RANGELESS)
class Rangeless(Mean):
    __doc__ = DOC
    rank: int = Field(default=1, description="its range is found out when it is used")

    def merge(self, group):
        assert self.rank > 0
        return super().merge(group)


TAKES_NAN = record("TakesNan")


@implements(TAKES_NAN)
class TakesNan(Mean):
    __doc__ = DOC
    model_config = ConfigDict(allow_inf_nan=True)
    scaling_factor: float = Field(default=0.0, description="NaN is accepted")

    def merge(self, group):
        return super().merge(group) * (1 + min(self.scaling_factor, 0))


def _made():
    class Local(Mean):
        __doc__ = DOC

    return Local


LOCAL = record("Local")
Local = implements(LOCAL)(_made())

SETUP = record("NeedsSetup")


@implements(SETUP)
class NeedsSetup(Mean):
    __doc__ = DOC
    home: ClassVar[int] = 0

    def merge(self, group):
        if self.home != os.getpid():
            raise RuntimeError("setup() was not called in this process")
        return super().merge(group)


def setup() -> None:
    NeedsSetup.home = os.getpid()


HIDDEN = record("Hidden")


@implements(HIDDEN)
class Hidden(Mean):
    __doc__ = DOC
    density: float = Field(default=0.5, gt=0, le=1, repr=False, description="not in the repr")


LOUD = record("LoudRepr")


@implements(LOUD)
class LoudRepr(Mean):
    __doc__ = DOC

    def __repr__(self):
        return "<LoudRepr>"


UNDOCUMENTED = record("Undocumented")


@implements(UNDOCUMENTED)
class Undocumented(Mean):
    pass


NO_FORMULA = record("NoFormula")


@implements(NO_FORMULA)
class NoFormula(Mean):
    """Modified from somewhere."""


NO_REFERENCE = record("NoReference", paper=SOUP)


@implements(NO_REFERENCE)
class NoReference(Mean):
    __doc__ = DOC


LINK = record(
    "Link", paper=Paper(title="T", authors="A", year=2022, arxiv="https://arxiv.org/abs/2203.05482")
)


@implements(LINK)
class Link(Mean):
    __doc__ = f"""{DOC}

    Reference:
        A, T, 2022.
    """


OTHER_PAPER = record("OtherPaper", paper=SOUP)


@implements(OTHER_PAPER)
class OtherPaper(Mean):
    __doc__ = f"""{DOC}

    Reference:
        Yadav et al., TIES-Merging, NeurIPS 2023, arXiv:2306.01708.
    """


IDENTITY = record("ByIdentity")


@implements(IDENTITY)
class ByIdentity(Mean):
    __doc__ = DOC
    density: float = Field(default=0.5, gt=0, le=1, description="fraction kept")

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


ALL_EQUAL = record("AllEqual")


@implements(ALL_EQUAL)
class AllEqual(Mean):
    __doc__ = DOC
    density: float = Field(default=0.5, gt=0, le=1, description="fraction kept")

    def __eq__(self, other):
        return type(self) is type(other)

    def __hash__(self):
        return 0


UNHASHABLE = record("Unhashable")


@implements(UNHASHABLE)
class Unhashable(Mean):
    __doc__ = DOC
    __hash__ = None
