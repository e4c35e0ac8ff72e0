"""Named copies of the weights: they stay as they were taken, and the present weights always come back."""

import pytest
import torch
from torch import nn

from rlpt.models.snapshots import Snapshots


def linear():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def train(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)


def test_a_copy_stays_and_the_present_weights_come_back():
    model, x = linear(), torch.ones(1, 3)
    snapshots = Snapshots(model)
    snapshots.take("reference")
    before = model(x).detach()
    storage = model.weight.data_ptr()
    train(model)
    after = model(x).detach()
    with snapshots.using("reference"):
        assert torch.equal(model(x), before)
    assert torch.equal(model(x), after)
    assert model.weight.data_ptr() == storage  # optimizers and buffers keep pointing at it
    snapshots.take("reference")
    with snapshots.using("reference"):
        assert torch.equal(model(x), after)


def test_the_present_weights_come_back_after_an_error():
    model = linear()
    snapshots = Snapshots(model)
    snapshots.take("old")
    train(model)
    present = model.weight.detach().clone()

    def fail():
        with snapshots.using("old"):
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(model.weight, present)


def test_names():
    snapshots = Snapshots(linear())
    assert "b" not in snapshots
    snapshots.take("b")
    snapshots.take("a")
    assert snapshots.names() == ["a", "b"]
    assert "b" in snapshots
    with pytest.raises(KeyError), snapshots.using("c"):
        pass


class Sharded(nn.Linear):
    """Gives its parameters themselves, as Megatron's modules do."""

    def sharded_state_dict(self, prefix):
        class Shard:
            def __init__(self, data):
                self.data = data

        return {prefix + name: Shard(parameter) for name, parameter in self.named_parameters()}


def test_a_checkpoint_gets_the_copies_and_not_the_present_weights():
    model = Sharded(3, 2)
    snapshots = Snapshots(model)
    snapshots.take("reference")
    old = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(model)
    state = snapshots.sharded_state_dict()["reference"]
    assert sorted(state) == ["snapshots.reference.bias", "snapshots.reference.weight"]
    for name, value in old.items():
        assert torch.equal(state[f"snapshots.reference.{name}"].data, value)
    for shard in state.values():
        shard.data.zero_()  # what loading in place does
    assert model.weight.abs().sum() > 0
    with snapshots.using("reference"):
        assert model.weight.abs().sum() == 0


def test_load_fills_the_copy_only():
    model = linear()
    snapshots = Snapshots(model)
    snapshots.take("reference")
    present = model.weight.detach().clone()
    snapshots.load(
        "reference", {f"snapshots.reference.{name}": torch.full_like(p, 7.0) for name, p in model.named_parameters()}
    )
    assert torch.equal(model.weight, present)
    with snapshots.using("reference"):
        assert (model.weight == 7).all()
        assert (model.bias == 7).all()
