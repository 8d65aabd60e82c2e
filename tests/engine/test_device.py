"""Where the engine computes: the CPU, unless a GPU is asked for and the method can use it."""

from __future__ import annotations

import pytest
import torch
from toy_methods import Mean, record, state

from fusionbench_core import ConfigError, TensorMethod, fuse, implements
from fusionbench_core.errors import InsufficientResources

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


SEEN: list[str] = []
"""Where a method has merged."""


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()


@implements(record("scaled_noise", base="required", locality="tensor", random=True, device="any"))
class ScaledNoise(TensorMethod):
    def merge(self, group):
        SEEN.append(group.base.device.type)
        noise = [group.uniform(name) for name in group.names]
        kept = [delta * each * delta.norm() for delta, each in zip(group.deltas, noise)]
        return group.base + sum(kept)


def merged(method, **options):
    models = {name: state(seed) for seed, name in enumerate("ab", 1)}
    return fuse(method, models, base=state(9), **options)


@no_gpu
def test_a_gpu_that_is_not_there_is_told_before_anything_is_read():
    with pytest.raises(InsufficientResources, match="there is no device cuda:1") as caught:
        merged(ScaledNoise(), engine={"device": "cuda:1"})
    assert "engine.device=cpu" in str(caught.value)


@no_gpu
def test_auto_is_the_cpu_where_there_is_no_gpu():
    auto, usual = merged(ScaledNoise(), engine={"device": "auto"}), merged(ScaledNoise())
    assert all(torch.equal(auto[name], usual[name]) for name in usual)
    assert set(SEEN) == {"cpu"}


def test_a_device_of_another_name_is_refused():
    with pytest.raises(ConfigError, match="device"):
        merged(Mean(), engine={"device": "gpu"})


@gpu
@pytest.mark.parametrize("threads", [1, 3])
def test_a_gpu_gives_what_the_cpu_gives_up_to_rounding(threads):
    there = merged(ScaledNoise(), engine={"device": "cuda", "threads": threads})
    assert set(SEEN) == {"cuda"}
    here = merged(ScaledNoise())
    for name in here:
        assert there[name].device.type == "cpu"
        torch.testing.assert_close(there[name], here[name], rtol=1e-5, atol=1e-5)


@gpu
def test_methods_that_do_not_say_so_stay_on_the_cpu():
    there, here = merged(Mean(), engine={"device": "cuda"}), merged(Mean())
    assert all(torch.equal(there[name], here[name]) for name in here)
