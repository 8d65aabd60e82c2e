"""Members of a predictor: what is in memory is theirs to decide, the outputs are the same."""

from __future__ import annotations

import torch
import toy
from torch import nn

from fusionbench_core import LiveMembers, Members, Predictor
from fusionbench_core.tasks.attach import attach

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


class Mean(Predictor):
    def combine(self, outputs):
        return outputs.mean(0)


class OneAtATime(Members):
    """Keeps one live layer, and the members' weights aside."""

    def __init__(self, states, layer, model=None):
        super().__init__(tuple(states))
        self.states, self.layer, self.model = states, layer, model or layer

    def attach(self, head):
        return OneAtATime(self.states, self.layer, head(self.layer))

    def member(self, name):
        raise NotImplementedError

    def forward(self, *args, **kwargs):
        outputs = []
        for state in self.states.values():
            self.layer.load_state_dict(state)
            outputs.append(self.model(*args, **kwargs))
        return outputs


def layers():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {name: nn.Linear(4, 3).requires_grad_(False) for name in "abc"}


def test_members_that_share_one_live_module_give_what_live_ones_give():
    live = layers()
    swapped = OneAtATime({name: layer.state_dict() for name, layer in live.items()}, nn.Linear(4, 3))
    task = toy.Blobs(name="blobs")
    assert torch.equal(attach(task, Mean(live))(x=X), attach(task, Mean(swapped.requires_grad_(False)))(x=X))
    assert torch.equal(Mean(live)(X), Mean(swapped)(X))


def test_a_member_is_given_as_a_copy():
    live = layers()
    members = LiveMembers(live)
    copied = members.member("b")
    copied.load_state_dict({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)})
    assert torch.equal(members(X)[1], live["b"](X))
    assert torch.count_nonzero(live["b"].state_dict()["weight"]) > 0
