"""BRIDGE on an enumerable bandit: its three updates are gradients of the relaxed objective, its gain estimate is exact
in expectation and its standard error honest."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import rlpt.algorithms  # noqa: F401 (registers)
from rlpt import registry
from rlpt.algorithms.bilevel import GainTerms, segment_sums, teacher_gradient
from rlpt.batch import Batch, Scores

CONTEXTS, ACTIONS, WIDTH, RANK, SCALE, BALANCE = 3, 4, 5, 2, 0.7, 0.35
SFT = registry.create("algorithm", {"name": "next_token"})
# with no clip in reach and a sampler that is known, the surrogate rho x A is the expected reward itself
RL = registry.create("algorithm", {"name": "grpo", "normalizer": "token", "clip_low": 1.0, "clip_high": 1e6})


class Bandit:
    """Actions from softmax((W + scale B A) x): W plays theta, (A, B) the adapters. Everything is float64 and exact."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)

        def draw(*shape):
            return torch.from_numpy(rng.standard_normal(shape))

        self.features, self.rewards = draw(CONTEXTS, WIDTH), draw(CONTEXTS, ACTIONS)
        self.demonstrations = torch.from_numpy(rng.integers(0, ACTIONS, CONTEXTS))
        self.sampler = draw(CONTEXTS, ACTIONS).log_softmax(-1)
        self.theta, self.shadow = draw(ACTIONS, WIDTH), draw(ACTIONS, WIDTH)
        self.w = (draw(RANK, WIDTH), draw(ACTIONS, RANK))

    def logprobs(self, theta, w):
        """[contexts, actions]"""
        return (self.features @ (theta + SCALE * w[1] @ w[0]).T).log_softmax(-1)

    def sft(self, theta, w):
        """J_SFT"""
        return self.logprobs(theta, w)[range(CONTEXTS), self.demonstrations].mean()

    def rl(self, theta, w):
        """J_RL"""
        return (self.logprobs(theta, w).exp() * self.rewards).sum(-1).mean()

    def relaxed(self, theta, w):
        """F, its maximum taken at the shadow."""
        gain = self.rl(theta, w) - self.rl(self.shadow, w)
        return (1 - BALANCE) * self.sft(theta, w) + BALANCE * gain

    def demonstration_rows(self):
        """One row a context, its demonstrated action as the only label."""
        return self._rows("text", self.demonstrations[:, None])

    def episode_rows(self):
        """Every action of every context, as often as the sampler would draw it: weights are in the advantages."""
        rows = self._rows("play", torch.arange(ACTIONS).expand(CONTEXTS, -1))
        return replace(rows, advantages=self.rewards * self.sampler.exp(), behavior_logprobs=self.sampler)

    def _rows(self, objective, labels):
        ones = torch.ones(labels.shape, dtype=torch.bool)
        zeros = torch.zeros(labels.shape, dtype=torch.int64)
        return Batch(objective, zeros, labels, zeros, loss_mask=ones, segments=zeros)

    def loss(self, algorithm, batch, theta, w):
        """As the train step has it: the total over the divisor (here the number of contexts)."""
        logprobs = self.logprobs(theta, w).gather(1, batch.labels)
        return algorithm(Scores(logprobs, torch.zeros_like(logprobs)), batch).total / CONTEXTS

    def gradient(self, algorithm, batch, theta, w):
        """(in theta, in w flat) of the loss."""
        leaves = [one.clone().requires_grad_() for one in (theta, *w)]
        found = torch.autograd.grad(self.loss(algorithm, batch, leaves[0], leaves[1:]), leaves)
        return found[0], torch.cat([one.flatten() for one in found[1:]])


def finite_difference(function, *tensors, step=1e-5):
    """Flat central differences of function(*tensors) in all of them."""
    found = []
    for tensor in tensors:
        flat = tensor.view(-1)
        for index in range(flat.numel()):
            kept = float(flat[index])
            ends = []
            for sign in (1, -1):
                flat[index] = kept + sign * step
                ends.append(float(function(*tensors)))
            flat[index] = kept
            found.append((ends[0] - ends[1]) / (2 * step))
    return torch.tensor(found, dtype=torch.float64)


def updates(bandit):
    """Descent directions of (theta, shadow, w): the losses' gradients, put together as a step with a shadow does."""
    text, play = bandit.demonstration_rows(), bandit.episode_rows()
    at_theta = [bandit.gradient(SFT, text, bandit.theta, bandit.w), bandit.gradient(RL, play, bandit.theta, bandit.w)]
    theta, mixed = ((1 - BALANCE) * sft + BALANCE * rl for sft, rl in zip(*at_theta))
    shadow, at_shadow = bandit.gradient(RL, play, bandit.shadow, bandit.w)
    return theta, shadow, teacher_gradient(mixed, at_shadow, BALANCE)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_three_updates_are_gradients_of_the_relaxed_objective(seed):
    bandit = Bandit(seed)
    theta, shadow, w = updates(bandit)
    wanted_theta = finite_difference(lambda theta: bandit.relaxed(theta, bandit.w), bandit.theta)
    wanted_shadow = finite_difference(lambda theta: bandit.rl(theta, bandit.w), bandit.shadow)
    wanted_w = finite_difference(lambda *w: bandit.relaxed(bandit.theta, w), *bandit.w)
    for found, wanted in ((theta.flatten(), wanted_theta), (shadow.flatten(), wanted_shadow), (w, wanted_w)):
        assert wanted.norm() > 0.05
        torch.testing.assert_close(-found, wanted, rtol=0, atol=1e-6)


def test_the_teachers_update_is_not_that_of_joint_training():
    bandit = Bandit()
    joint = [bandit.gradient(SFT, bandit.demonstration_rows(), bandit.theta, bandit.w)[1]]
    joint.append(bandit.gradient(RL, bandit.episode_rows(), bandit.theta, bandit.w)[1])
    mixed = (1 - BALANCE) * joint[0] + BALANCE * joint[1]
    assert (updates(bandit)[2] - mixed).norm() > 0.02


def ascend(bandit, balance, steps=200, rate=0.3):
    """Plain gradient steps from theta = shadow; returns (theta, shadow, w)."""
    text, play = bandit.demonstration_rows(), bandit.episode_rows()
    theta, shadow, w = bandit.theta, bandit.theta.clone(), torch.cat([one.flatten() for one in bandit.w])
    for _ in range(steps):
        parts = w[: RANK * WIDTH].view(RANK, WIDTH), w[RANK * WIDTH :].view(ACTIONS, RANK)
        sft, rl = (bandit.gradient(*pair, theta, parts) for pair in ((SFT, text), (RL, play)))
        at_shadow = bandit.gradient(RL, play, shadow, parts)
        mixed = [(1 - balance) * one + balance * other for one, other in zip(sft, rl)]
        theta = theta - rate * mixed[0]
        shadow = shadow - rate * at_shadow[0]
        w = w - rate * teacher_gradient(mixed[1], at_shadow[1], balance)
    return theta, shadow, parts


def test_with_all_weight_on_reward_the_shadow_is_the_weights_and_nothing_is_gained():
    bandit = Bandit()
    theta, shadow, w = ascend(bandit, balance=1.0)
    assert torch.equal(theta, shadow)
    assert not torch.equal(theta, bandit.theta)
    assert all(torch.equal(one, other) for one, other in zip(w, bandit.w))
    assert bandit.rl(theta, w) - bandit.rl(shadow, w) == 0


def test_demonstrations_part_the_weights_from_the_shadow():
    bandit = Bandit()
    theta, shadow, w = ascend(bandit, balance=0.5, steps=20)
    assert (theta - shadow).norm() > 0.5
    assert bandit.sft(theta, w) > bandit.sft(shadow, w) + 0.2


@pytest.mark.parametrize("baseline", [0.0, 0.8])
@pytest.mark.parametrize("sampler", ["policy", "stale"])
def test_the_gain_is_unbiased_whoever_sampled(sampler, baseline):
    """The expectation over the sampler, written out: each action's term times its probability."""
    bandit = Bandit()
    policy, shadow = (bandit.logprobs(theta, bandit.w) for theta in (bandit.theta, bandit.shadow))
    sampled = policy if sampler == "policy" else bandit.sampler
    expected = 0.0
    for place in np.ndindex(CONTEXTS, ACTIONS):
        ratios = (np.array([float((one - sampled)[place])]) for one in (policy, shadow))
        terms = GainTerms.of(*ratios, np.array([float(bandit.rewards[place])]), baseline)
        assert terms.number == 1
        expected += float(sampled[place].exp()) / CONTEXTS * terms.gain
    gain = float(bandit.rl(bandit.theta, bandit.w) - bandit.rl(bandit.shadow, bandit.w))
    assert abs(gain) > 0.1
    assert expected == pytest.approx(gain, rel=1e-12)


def test_the_standard_error_is_the_spread_of_the_estimates():
    """1,500 data sets of 120 trajectories: the estimates' own spread, known to 1/sqrt(2 x 1,500) = 2 %, here within 4
    of those; the mean within 4 standard errors of the exact gain."""
    bandit, rng, number, sets = Bandit(), np.random.default_rng(3), 120, 1500
    policy, shadow = (bandit.logprobs(theta, bandit.w).numpy() for theta in (bandit.theta, bandit.shadow))
    chances = np.exp(policy).reshape(-1) / CONTEXTS
    drawn = rng.choice(chances.size, (sets, number), p=chances / chances.sum())
    at_shadow, rewards = (shadow - policy).reshape(-1)[drawn], bandit.rewards.numpy().reshape(-1)[drawn]
    found = [GainTerms.of(np.zeros(number), *one, baseline=0.2) for one in zip(at_shadow, rewards)]
    gains, errors = np.array([one.gain for one in found]), np.array([one.error for one in found])
    exact = float(bandit.rl(bandit.theta, bandit.w) - bandit.rl(bandit.shadow, bandit.w))
    assert np.sqrt((errors**2).mean()) == pytest.approx(gains.std(), rel=4 / math.sqrt(2 * sets))
    assert gains.mean() == pytest.approx(exact, abs=4 * gains.std() / math.sqrt(sets))


def test_gain_and_error_by_hand():
    """Weights 1 - 0.5, 1 - 2, 1 - 1; rewards less 0.5: 0.5, -0.5, 0.5; values 0.25, 0.5, 0."""
    terms = GainTerms.of(np.zeros(3), np.log([0.5, 2.0, 1.0]), np.array([1.0, 0.0, 1.0]), 0.5)
    assert (terms.number, terms.total, terms.squares) == pytest.approx((3, 0.75, 0.3125))
    assert terms.gain == pytest.approx(0.25)
    assert terms.error == pytest.approx(math.sqrt(0.0625 / 3))  # sample variance (0 + 0.0625 + 0.0625) / 2
    assert GainTerms(1, 3.0, 9.0).error == 0
    assert GainTerms(0, 0.0, 0.0).gain == 0
    huge = GainTerms.of(np.array([1e4, 0.0]), np.zeros(2), np.ones(2), 0.0)
    assert math.isfinite(huge.squares)
    assert huge.gain > 1e8


def test_equal_weights_have_no_gain_at_all():
    ratios = np.random.default_rng(0).standard_normal(50)
    terms = GainTerms.of(ratios, ratios.copy(), np.arange(50.0), 3.0)
    assert (terms.gain, terms.error) == (0.0, 0.0)


def test_segment_sums_by_hand():
    """Two rows of segments 0 and 1 with padding; a segment without loss tokens has no sum."""
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0], [32.0, 64.0, 128.0, 256.0, math.nan]])
    segments = torch.tensor([[0, 0, 1, 1, -1], [0, 1, 1, 2, -1]])
    mask = torch.tensor([[False, True, True, True, False], [False, True, False, True, False]])
    sums, first = segment_sums(values, mask, segments)
    assert sums.tolist() == [2.0, 12.0, 64.0, 256.0]
    assert first.tolist() == [1, 2, 6, 8]


def test_segment_sums_of_nothing():
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    sums, first = segment_sums(torch.ones(2, 3), nothing, torch.full((2, 3), -1))
    assert (len(sums), len(first)) == (0, 0)


def test_the_teachers_gradient_by_hand():
    found = teacher_gradient(torch.tensor([3.0, -1.0]), torch.tensor([2.0, 4.0]), 0.25)
    assert found.tolist() == [2.5, -2.0]
