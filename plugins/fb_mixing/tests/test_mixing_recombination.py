"""Model recombination: every part from one model, all parts used once over all members."""

from __future__ import annotations

import pytest
import torch
from fb_mixing.recombination.model_recombination import ModelRecombination, part_of

from fusionbench_core import ConfigError, fuse

NAMES = [f"layers.{layer}.{kind}" for layer in range(6) for kind in ("fc.weight", "fc.bias", "norm.weight")]
MODELS = {
    model: {name: torch.full((2,), 100.0 * number + index) for index, name in enumerate([*NAMES, "head"])}
    for number, model in enumerate("abcd")
}


def origins(state) -> dict[str, str]:
    return {name: "abcd"[int(tensor[0]) // 100] for name, tensor in state.items()}


@pytest.mark.parametrize(("granularity", "parts"), [("module", 13), ("block", 7), ("tensor", 19)])
def test_parts_move_as_one_and_over_all_members_each_model_is_used_once(granularity, parts):
    members = [fuse(ModelRecombination(granularity=granularity, member=m), MODELS) for m in range(4)]
    found = [origins(member) for member in members]
    assert len({part_of(name, granularity) for name in MODELS["a"]}) == parts
    for name in MODELS["a"]:
        assert {each[name] for each in found} == set("abcd")
    for each in found:
        by_part: dict[str, set[str]] = {}
        for name, model in each.items():
            by_part.setdefault(part_of(name, granularity), set()).add(model)
        assert all(len(models) == 1 for models in by_part.values())


def test_models_are_drawn_evenly():
    counts = dict.fromkeys("abcd", 0)
    for seed in range(60):
        for model in origins(fuse(ModelRecombination(granularity="tensor"), MODELS, seed=seed)).values():
            counts[model] += 1
    # 19 tensors and 60 seeds: 285 each, standard deviation 14.6.
    assert all(abs(count - 285) < 5 * 14.6 for count in counts.values())


def test_the_order_of_models_does_not_matter():
    backwards = dict(reversed(MODELS.items()))
    assert origins(fuse("model_recombination", MODELS)) == origins(fuse("model_recombination", backwards))


def test_a_member_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="member=4"):
        ModelRecombination(member=4).check("abcd")
