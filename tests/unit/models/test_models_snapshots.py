"""Named copies of the weights: they stay as they were taken, and the present weights always come back."""

import pytest
import torch
from helpers.tiny_model import build, one_rank, tiny_config, wake
from torch import nn

from rlpt.config_objectives import SnapshotConfig
from rlpt.models.snapshots import SnapshotKeeper, Snapshots
from rlpt.training.checkpoint_weights import load_weights, save_weights


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


def test_copies_that_move_are_float32_whatever_the_weights_are():
    """A step of 1 / 1,000 is below the spacing of bfloat16 at 1: in bfloat16 the average would never move."""
    model = nn.Linear(3, 2, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        model.weight.fill_(1.0)
    snapshots = Snapshots(model, moving={"mean"})
    snapshots.take("mean")
    snapshots.take("fixed")
    assert snapshots.tensors("mean")["weight"].dtype == torch.float32
    assert snapshots.tensors("fixed")["weight"].dtype == torch.bfloat16
    with torch.no_grad():
        model.weight.fill_(2.0)
    snapshots.average("mean", 0.999)
    torch.testing.assert_close(snapshots.tensors("mean")["weight"], torch.full((2, 3), 1.001))
    snapshots.average("mean", 0.999)
    torch.testing.assert_close(snapshots.tensors("mean")["weight"], torch.full((2, 3), 1.001999))
    with snapshots.using("mean"):
        assert model.weight.dtype == torch.bfloat16
        assert (model.weight == 1.0).all()
    assert (model.weight == 2.0).all()


def test_doubles_stay_doubles():
    snapshots = Snapshots(nn.Linear(3, 2).double(), moving={"mean"})
    snapshots.take("mean")
    assert snapshots.tensors("mean")["weight"].dtype == torch.float64


def test_averages_by_hand():
    model = linear()
    snapshots = Snapshots(model, moving={"mean"})
    with torch.no_grad():
        model.weight.fill_(4.0)
    snapshots.take("mean")
    with torch.no_grad():
        model.weight.fill_(8.0)
    snapshots.average("mean", 0.75)
    assert (snapshots.tensors("mean")["weight"] == 5.0).all()
    snapshots.average("mean", 0.0)
    assert (snapshots.tensors("mean")["weight"] == 8.0).all()
    snapshots.average("mean", 1.0)
    assert (snapshots.tensors("mean")["weight"] == 8.0).all()
    with torch.no_grad():
        model.weight.fill_(0.0)
    assert (snapshots.tensors("mean")["weight"] == 8.0).all()  # a copy, not a view


def test_using_only_some_of_the_parameters():
    model = linear()
    snapshots = Snapshots(model)
    snapshots.take("old")
    old = {name: value.detach().clone() for name, value in model.named_parameters()}
    train(model)
    with snapshots.using("old", only=lambda name: name == "bias"):
        assert torch.equal(model.bias, old["bias"])
        assert torch.equal(model.weight, old["weight"] + 1)
    assert torch.equal(model.bias, old["bias"] + 1)


def test_gradients_inside_belong_to_the_parameters_and_leave_the_copy_alone():
    model, x = linear(), torch.ones(1, 3)
    snapshots = Snapshots(model)
    snapshots.take("old")
    old = model.weight.detach().clone()
    train(model)
    with snapshots.using("old"):
        model(x).square().sum().backward()
        wanted = 2 * (x @ old.T + model.bias)
    assert torch.allclose(model.weight.grad, wanted.T @ x)
    assert torch.equal(snapshots.tensors("old")["weight"], old)


def test_a_dropped_copy_is_gone():
    snapshots = Snapshots(linear())
    snapshots.take("old")
    snapshots.drop("old")
    assert snapshots.names() == []


def history(steps, **configs):
    """Names with the value of their weights (the steps done when taken) before each step; the weights count steps."""
    model = nn.Linear(1, 1, bias=False)
    snapshots = Snapshots(model, moving={name for name, one in configs.items() if one["update"] == "ema"})
    keeper = SnapshotKeeper(snapshots, {name: SnapshotConfig(**one) for name, one in configs.items()})
    seen = []
    with torch.no_grad():
        model.weight.zero_()
        for step in range(steps):
            keeper.before_step(step)
            seen.append({name: round(float(snapshots.tensors(name)["weight"]), 6) for name in snapshots.names()})
            model.weight.add_(1.0)
            keeper.after_step()
    return seen


def test_a_copy_that_is_never_renewed_is_the_weights_at_its_start_step():
    assert history(5, start={"update": "never", "start_step": 2}) == [{}, {}, *[{"start": 2.0}] * 3]


def test_a_copy_at_an_interval():
    seen = history(8, lagged={"update": "interval", "interval": 3, "start_step": 1})
    assert [one.get("lagged") for one in seen] == [None, 1, 1, 1, 4, 4, 4, 7]


def test_a_moving_average():
    """Taken before step 1 at 1; after that step the weights are 2: 0.5 x 1 + 0.5 x 2; then 3, and so on."""
    seen = history(5, mean={"update": "ema", "decay": 0.5, "start_step": 1})
    assert [one.get("mean") for one in seen] == [None, 1, 1.5, 2.25, 3.125]


def test_a_pool_keeps_the_newest():
    seen = history(12, past={"update": "pool", "interval": 2, "keep": 3}, other={"update": "never"})
    assert sorted(seen[0]) == ["other", "past@0"]
    assert seen[3] == {"other": 0, "past@0": 0, "past@2": 2}
    assert seen[11] == {"other": 0, "past@6": 6, "past@8": 8, "past@10": 10}  # by number, not by name
    model = nn.Linear(1, 1)
    snapshots = Snapshots(model)
    for step in (100, 20, 3):
        snapshots.take(f"past@{step}")
    snapshots.take("pastime")
    assert SnapshotKeeper(snapshots, {}).pool("past") == ["past@3", "past@20", "past@100"]


def test_a_keeper_that_begins_again_goes_on():
    """What is there already is not taken anew: a resumed run gives each copy its saved weights first."""
    model = linear()
    snapshots = Snapshots(model, moving={"mean"})
    config = {
        "mean": SnapshotConfig(update="ema"),
        "start": SnapshotConfig(),
        "lagged": SnapshotConfig(update="interval"),
    }
    SnapshotKeeper(snapshots, config).before_step(0)
    old = {name: snapshots.tensors(name)["weight"].clone() for name in config}
    train(model)
    SnapshotKeeper(snapshots, config).before_step(7)
    assert all(torch.equal(snapshots.tensors(name)["weight"], old[name]) for name in config)


def test_copies_that_are_not_configured_any_more_go():
    snapshots = Snapshots(linear())
    for name in ("start", "past@3", "past@12", "old", "older@7", "shadow"):
        snapshots.take(name)
    keeper = SnapshotKeeper(snapshots, {"start": SnapshotConfig(), "past": SnapshotConfig(update="pool")})
    keeper.drop_others(["shadow", "shadow.exp_avg"])
    assert snapshots.names() == ["past@12", "past@3", "shadow", "start"]
    keeper.drop_others([])
    assert snapshots.names() == ["past@12", "past@3", "start"]


def test_several_copies_of_a_real_model_through_a_checkpoint(tmp_path):
    """With adapters and a head; each copy gets its own values back, in its own precision; the weights stay."""
    with one_rank():
        config = tiny_config(dtype="bfloat16", adapter={"rank": 2})
        _, policy = build(config, ["value"])
        wake(policy, config)
        snapshots = Snapshots(policy.gpt, moving={"mean"})
        for name in ("start", "mean", "past@10"):
            snapshots.take(name)
            with torch.no_grad():
                for parameter in policy.gpt.parameters():
                    parameter.mul_(1.5)
        snapshots.average("mean", 0.999)
        saved = {name: {k: v.clone() for k, v in snapshots.tensors(name).items()} for name in snapshots.names()}
        (tmp_path / "weights").mkdir()
        with policy.device.megatron():
            state = {"model": policy.gpt.sharded_state_dict(), "snapshots": snapshots.sharded_state_dict()}
        save_weights(tmp_path / "weights", state)
        for name in saved:
            snapshots.take(name)
        present = [one.detach().clone() for one in policy.gpt.parameters()]
        loaded = load_weights(tmp_path / "weights", {"snapshots": snapshots.sharded_state_dict()})
        for name in saved:
            snapshots.load(name, loaded["snapshots"][name])
        assert all(torch.equal(one, other) for one, other in zip(present, policy.gpt.parameters()))
    for name, copies in saved.items():
        assert {"heads.value.weight", "decoder.layers.1.mlp.linear_fc1.adapter_b"} <= copies.keys()
        for key, value in copies.items():
            assert value.dtype == (torch.float32 if name == "mean" else torch.bfloat16)
            assert torch.equal(snapshots.tensors(name)[key], value), (name, key)
    assert not torch.equal(saved["start"]["heads.value.weight"], saved["past@10"]["heads.value.weight"])
    assert any((value.to(torch.bfloat16).float() != value).any() for value in saved["mean"].values())
