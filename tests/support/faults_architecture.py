"""Methods that refuse models of some architectures."""

from __future__ import annotations

from torch import nn

from fusionbench_core import Fused, ModelMethod, UnsupportedArchitecture, implements
from fusionbench_core.records import BuilderRecord, Capabilities, MethodRecord


def record(target: str) -> MethodRecord:
    return MethodRecord(
        name=target.lower(),
        target=f"faults_architecture:{target}",
        summary="refuses models",
        capabilities=Capabilities(base="required", output="module", locality="model"),
    )


PICKY, REFUSING, MIXED = record("Picky"), record("Refusing"), record("Mixed")
BUILDERS = (BuilderRecord(name="same", target="faults_architecture:same", summary="the architecture itself"),)


def same(context) -> nn.Module:
    return context.skeleton()


@implements(PICKY)
class Picky(ModelMethod):
    r"""Give the base, where it has a list of layers: $\theta = \theta_0$."""

    def fuse(self, job):
        base = job.pool.module()
        if not any(isinstance(module, nn.ModuleList) for module in base.modules()):
            raise UnsupportedArchitecture("there is no list of layers", fix="choose another model")
        for name in job.pool:
            job.pool.module(name)
        return Fused.of_module(base, builder="same")


@implements(REFUSING)
class Refusing(ModelMethod):
    r"""Refuse all models: $\emptyset$."""

    def fuse(self, job):
        raise UnsupportedArchitecture("never", fix="choose another method")


@implements(MIXED)
class Mixed(ModelMethod):
    r"""Give the base, where it has mixtures of experts: $\theta = \theta_0$."""

    example_architecture = "mixtures"

    def fuse(self, job):
        base = job.pool.module()
        if not hasattr(base, "mixtures"):
            raise UnsupportedArchitecture("there are no mixtures", fix="choose another model")
        for name in job.pool:
            job.pool.module(name)
        return Fused.of_module(base, builder="same")
