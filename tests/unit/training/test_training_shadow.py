"""The shadow of a bilevel run on a real model: whose gradient is whose, what stays equal bit for bit, exact resume."""

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from helpers.tiny_model import build, one_rank, played_batch, random_batch, tiny_config, wake
from helpers.tiny_training import own, sharded

from rlpt.config import parse_config
from rlpt.models.lora import is_adapter
from rlpt.models.snapshots import Snapshots
from rlpt.training.checkpoint_weights import load_weights, save_weights
from rlpt.training.optimizer import Optimizer, wrap_data_parallel
from rlpt.training.runtime import create_algorithms
from rlpt.training.schedule import Schedule
from rlpt.training.shadow import NAMES, SHADOW, Shadow
from rlpt.training.step import TrainStep


@pytest.fixture(autouse=True)
def _alone():
    with one_rank():
        yield


def configured(balance=0.3, meta=True, clip=1.0, dtype="float32", **adapter):
    adapter = {"rank": 3, "alpha": 6, **adapter}
    values = tiny_config({"distributed_optimizer": False}, dtype, adapter=adapter, init_std=0.1)
    values = values.model_dump(mode="json")
    values["objectives"]["play"]["source"] = {"name": "episodes"}
    values["objectives"]["play"]["algorithm"] = {"name": "grpo", "entropy_bonus": 0.01, "clip_low": 0.9, "clip_high": 9}
    values["bilevel"] = {"upper": "text", "lower": "play", "balance": balance, "meta": meta}
    values["optimizer"]["clip_grad"] = clip
    return parse_config(values)


@dataclass
class Run:
    """What `Trainer` makes of a configuration, without its sources."""

    config: Any
    policy: Any
    optimizer: Optimizer
    snapshots: Snapshots
    shadow: Shadow | None
    step: TrainStep
    plain: TrainStep  # the same without a shadow

    def batches(self, number):
        """Rows whose sampler is the present weights, give or take; two microbatches an objective."""
        text = [random_batch("text", 10 * number + i, 0.6) for i in range(2)]
        play = []
        for i in range(2):
            batch = played_batch("play", 10 * number + i, 0.5)
            play.append(replace(batch, behavior_logprobs=self.policy.score(batch).logprobs + 0.1 * batch.advantages))
        return own({"text": text, "play": play}, self.policy.mesh)

    def go(self, first, stop):
        """Steps [first, stop); their results."""
        schedule = Schedule(self.config)
        return [self.step(self.batches(number), schedule.plan(number, {})) for number in range(first, stop)]

    def weights(self, wanted=lambda name: True):
        return {name: one.detach().clone() for name, one in self.policy.gpt.named_parameters() if wanted(name)}

    def gradients(self):
        return {name: one.main_grad.clone() for name, one in self.policy.gpt.named_parameters() if one.requires_grad}

    def state(self):
        """All that a checkpoint holds."""
        return sharded(self.policy, self.optimizer, is_loading=False) | {
            "snapshots": self.snapshots.sharded_state_dict()
        }


def started(config, prepare=True):
    mesh, policy = build(config)
    wake(policy, config)
    model = wrap_data_parallel(config, policy.gpt, policy.device)
    optimizer = Optimizer(config, model, policy.device)
    snapshots = Snapshots(policy.gpt, moving=NAMES)
    shadow = Shadow(config, snapshots, optimizer, mesh) if config.bilevel.meta else None
    parts = policy, model, optimizer, create_algorithms(config)
    step = TrainStep(*parts, passes=[shadow] if shadow else [])
    if shadow and prepare:
        shadow.prepare()
    return Run(config, policy, optimizer, snapshots, shadow, step, TrainStep(*parts))


def base(name):
    return not is_adapter(name)


def test_adapters_lose_what_they_earn_the_shadow_and_the_weights_gradient_is_their_own():
    run = started(configured(clip=0))
    run.go(0, 3)
    batches, plan = run.batches(3), replace(Schedule(run.config).plan(3, {}), lr=0.0)
    counts, kept = run.plain.global_counts(batches), run.weights()

    def gradients(part, coefficients):
        run.optimizer.zero_grad()
        run.plain.forward_backward(part, coefficients, counts)
        return run.gradients()

    mixed = gradients(batches, plan.coefficients)
    with torch.no_grad():  # the shadow's weights put in by hand, not by `using`
        for name, parameter in run.policy.gpt.named_parameters():
            if base(name):
                parameter.copy_(run.snapshots.tensors(SHADOW)[name])
    at_shadow = gradients({"play": batches["play"]}, {"play": 0.7})
    with torch.no_grad():
        for name, parameter in run.policy.gpt.named_parameters():
            parameter.copy_(kept[name])
    before = {name: one.clone() for name, one in run.snapshots.tensors(SHADOW).items()}
    result = run.step(batches, plan)
    found = run.gradients()
    adapters = [name for name in found if is_adapter(name)]
    assert len(adapters) == 16
    for name in adapters:
        torch.testing.assert_close(found[name], mixed[name] - 0.3 * at_shadow[name], rtol=1e-6, atol=1e-9)
        assert (found[name] - mixed[name]).norm() > 1e-3 * mixed[name].norm() > 0
    assert all(torch.equal(found[name], mixed[name]) for name in found if base(name))
    norm = sum(float(at_shadow[name].square().sum()) for name in found if base(name)) ** 0.5
    assert result.metrics["bilevel/shadow_gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert all(torch.equal(one, before[name]) for name, one in run.snapshots.tensors(SHADOW).items())  # lr is 0
    assert all(torch.equal(one, kept[name]) for name, one in run.weights().items())


@pytest.mark.parametrize(("clip", "dtype"), [(0.0, "float32"), (0.05, "float32"), (0.05, "bfloat16")])
def test_with_all_weight_on_reward_shadow_and_weights_are_equal_bit_for_bit(clip, dtype):
    """In bfloat16 the shadow is float32, as the weights' masters are, and is rounded as they are."""
    run = started(configured(balance=1.0, clip=clip, dtype=dtype))
    first = run.weights(base)
    results = run.go(0, 4)
    assert [(one.metrics["bilevel/gain"], one.metrics["bilevel/gain_error"]) for one in results] == [(0.0, 0.0)] * 4
    for name, weight in run.weights(base).items():
        assert torch.equal(weight, run.snapshots.tensors(SHADOW)[name].to(weight.dtype)), name
    moved = [name for name, weight in run.weights(base).items() if not torch.equal(weight, first[name])]
    assert len(moved) > len(first) / 2
    assert dtype == "bfloat16" or len(moved) == len(first)  # norms at 1 + 3e-3 round to 1
    assert not any(one.skipped for one in results)


def test_demonstrations_part_weights_and_shadow_and_the_gain_is_that_of_the_rows():
    """The gain of the last step, worked out again from scores of its rows."""
    run = started(configured(clip=0))
    run.go(0, 3)
    batches = run.batches(3)
    scores = [run.policy.score(batch).logprobs for batch in batches["play"]]
    with run.snapshots.using(SHADOW, only=base):
        at_shadow = [run.policy.score(batch).logprobs for batch in batches["play"]]
    found = run.step(batches, Schedule(run.config).plan(3, {})).metrics
    weights, rewards = [], []
    for batch, one, other in zip(batches["play"], scores, at_shadow):
        for row in range(3):
            for segment in (0, 1):
                here = batch.loss_mask[row] & (batch.segments[row] == segment)
                sums = [(values[row] - batch.behavior_logprobs[row])[here].double().sum() for values in (one, other)]
                weights.append(float(sums[0].exp() - sums[1].exp()))
                rewards.append(float(batch.episode_rewards[row, 0]))
    weights, rewards = torch.tensor(weights, dtype=torch.float64), torch.tensor(rewards, dtype=torch.float64)
    values = weights * (rewards - rewards.mean())
    assert len(values) == 12
    assert float(values.mean()) != 0
    assert found["bilevel/gain"] == pytest.approx(float(values.mean()), rel=1e-4)
    assert found["bilevel/gain_error"] == pytest.approx(float(values.std() / 12**0.5), rel=1e-4)


def test_adapters_that_stay_as_they_are_give_plain_joint_training_bit_for_bit():
    """w is never moved (beta = 0): the shadow learns beside it and changes nothing."""
    shadowed = started(configured(lr_scale=0))
    losses = [(one.losses, one.gradient_norm) for one in shadowed.go(0, 4)]
    weights = shadowed.weights()
    moved = shadowed.snapshots.tensors(SHADOW)["decoder.layers.0.mlp.linear_fc1.weight"].clone()
    joint = started(configured(lr_scale=0, meta=False))
    assert [(one.losses, one.gradient_norm) for one in joint.go(0, 4)] == losses
    for name, weight in joint.weights().items():
        assert torch.equal(weight, weights[name]), name
    assert not torch.equal(moved, weights["decoder.layers.0.mlp.linear_fc1.weight"])


def test_the_shadow_counts_for_adapters_that_move():
    results = []
    for meta in (True, False):
        run = started(configured(meta=meta))
        results.append([one.losses["text"] for one in run.go(0, 4)])
    assert results[0][0] == results[1][0]
    assert all(one != other for one, other in zip(results[0][1:], results[1][1:]))


def test_a_step_without_episodes_leaves_the_shadow_alone():
    run = started(configured())
    run.go(0, 1)
    before = {name: one.clone() for name, one in run.snapshots.tensors(SHADOW).items()}
    text = {"text": run.batches(1)["text"]}
    result = run.step(text, Schedule(run.config).plan(1, {}))
    assert "bilevel/gain" not in result.metrics
    assert run.shadow.updates == 1
    assert all(torch.equal(one, before[name]) for name, one in run.snapshots.tensors(SHADOW).items())


def test_a_step_that_is_not_finite_leaves_the_shadow_alone():
    run = started(configured())
    run.go(0, 1)
    before = {name: one.clone() for name, one in run.snapshots.tensors(SHADOW).items()}
    batches = run.batches(1)
    batches["play"][0] = replace(
        batches["play"][0], advantages=torch.full_like(batches["play"][0].advantages, torch.inf)
    )
    assert run.step(batches, Schedule(run.config).plan(1, {})).skipped
    assert run.shadow.updates == 1
    assert all(torch.equal(one, before[name]) for name, one in run.snapshots.tensors(SHADOW).items())
    assert not run.go(1, 2)[0].skipped
    assert run.shadow.updates == 2


def test_a_shadow_whose_own_gradient_is_not_finite_is_not_moved():
    """Frozen adapters tell nothing of it: the step itself is sound."""
    run = started(configured(lr_scale=0))
    run.go(0, 1)
    moments = run.snapshots.tensors(NAMES[1])
    before = {name: one.clone() for name, one in moments.items()}
    run.snapshots.tensors(SHADOW)["decoder.final_layernorm.weight"].fill_(torch.inf)
    [result] = run.go(1, 2)
    assert not result.skipped
    assert not math.isfinite(result.metrics["bilevel/shadow_gradient_norm"])
    assert run.shadow.updates == 1
    assert all(torch.equal(one, before[name]) for name, one in moments.items())


def test_resumed_is_run_through(tmp_path):
    """Weights, optimizer, shadow and moments through a checkpoint; the count of its steps through JSON."""
    run = started(configured())
    run.go(0, 2)
    (tmp_path / "weights").mkdir()
    save_weights(tmp_path / "weights", run.state())
    state, names = json.loads(json.dumps(run.shadow.state_dict())), run.snapshots.names()
    through = [(one.losses, one.metrics, one.gradient_norm) for one in run.go(2, 4)]
    last, shadow = run.weights(), {n: {k: v.clone() for k, v in run.snapshots.tensors(n).items()} for n in names}
    assert sorted(names) == sorted(NAMES)
    assert state == {"updates": 2}

    again = started(configured(), prepare=False)
    for name in names:
        again.snapshots.take(name)
    wanted = sharded(again.policy, again.optimizer, True) | {"snapshots": again.snapshots.sharded_state_dict()}
    loaded = load_weights(tmp_path / "weights", wanted)
    again.policy.gpt.load_state_dict(loaded["model"])
    again.optimizer.load_state_dict(loaded["optimizer"])
    for name in names:
        again.snapshots.load(name, loaded["snapshots"][name])
    again.shadow.load_state_dict(state)
    assert [(one.losses, one.metrics, one.gradient_norm) for one in again.go(2, 4)] == through
    assert all(torch.equal(one, last[name]) for name, one in again.weights().items())
    for name in names:
        for key, one in again.snapshots.tensors(name).items():
            assert torch.equal(one, shadow[name][key]), (name, key)
        assert name == SHADOW or any(one.any() for one in again.snapshots.tensors(name).values())
