"""Estimators of advantages against numbers worked out by hand."""

import math

import numpy as np
import pytest
from helpers.played import one_rank

from rlpt.algorithms import advantage_estimators as estimators

REWARDS = np.array([1.0, 0.0, 0.5, 2.0, 4.0])
PEERS = np.array([7, 7, 7, -3, -3])
BY_SET = {
    "group_mean_baseline": estimators.group_mean_baseline,
    "leave_one_out": estimators.leave_one_out,
    "group_normalise": lambda rewards, peers: estimators.group_normalise(rewards, peers, divide_by_std=True),
    "maximum_likelihood": estimators.maximum_likelihood,
    "normalise_by_key": lambda rewards, peers: estimators.normalise_by_key(rewards, [f"key {peer}" for peer in peers]),
}
REFUSING = [name for name in BY_SET if name != "normalise_by_key"]  # which gives a set of one 0


def test_group_mean_baseline():
    assert estimators.group_mean_baseline(REWARDS, PEERS) == pytest.approx([0.5, -0.5, 0, -1, 1])


def test_leave_one_out():
    assert estimators.leave_one_out(REWARDS, PEERS) == pytest.approx([0.75, -0.75, 0, -2, 2])


def test_leave_one_out_is_the_form_that_rlp_prints():
    """A = G / (G - 1) (r - mean)."""
    expected = [3 / 2 * 0.5, 3 / 2 * -0.5, 0, 2 / 1 * -1, 2 / 1 * 1]
    assert estimators.leave_one_out(REWARDS, PEERS) == pytest.approx(expected)


def test_group_normalise():
    deviation = math.sqrt(1 / 6)
    expected = [0.5 / deviation, -0.5 / deviation, 0, -1, 1]
    assert estimators.group_normalise(REWARDS, PEERS, True) == pytest.approx(expected, rel=1e-5)
    assert estimators.group_normalise(REWARDS, PEERS, False) == pytest.approx([0.5, -0.5, 0, -1, 1])


def test_maximum_likelihood_divides_by_the_mean():
    rewards, peers = np.array([1.0, 0, 0, 0, 1, 1, 1, 0, 0, 0]), np.array([0] * 4 + [1] * 4 + [2] * 2)
    expected = [3, -1, -1, -1, 1 / 3, 1 / 3, 1 / 3, -1, 0, 0]  # means 1/4, 3/4 and 0
    assert estimators.maximum_likelihood(rewards, peers) == pytest.approx(expected)


def test_maximum_likelihood_estimates_the_gradient_of_log_success():
    """sum A grad log p / n = mean of grad log p over the successes (whose expectation is grad log P(success)), less the
    mean over all."""
    rewards, gradients = np.array([1.0, 0, 1, 0, 0]), np.array([0.3, -0.7, 0.9, 0.1, -0.2])
    advantages = estimators.maximum_likelihood(rewards, np.zeros(5, np.int64))
    assert (advantages * gradients).mean() == pytest.approx((0.3 + 0.9) / 2 - gradients.mean())


def test_maximum_likelihood_refuses_negative_rewards():
    with pytest.raises(ValueError, match=r"the one at 1 is -0\.5"):
        estimators.maximum_likelihood(np.array([1.0, -0.5]), np.zeros(2, np.int64))


@pytest.mark.parametrize("estimator", BY_SET.values(), ids=BY_SET)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_equal_rewards_give_exactly_zero(estimator, size):
    """0.1 + 0.1 + 0.1 is not 0.3, and dividing what is left over by its own size would make it a whole advantage."""
    for reward in (0.1, 1 / 3, 0.7, 1e9):
        assert not estimator(np.full(size, reward), np.zeros(size, np.int64)).any()


@pytest.mark.parametrize("estimator", BY_SET.values(), ids=BY_SET)
def test_order_of_trajectories_does_not_matter(estimator):
    order = np.array([3, 1, 4, 0, 2])
    assert estimator(REWARDS[order], PEERS[order]) == pytest.approx(estimator(REWARDS, PEERS)[order])
    assert np.abs(estimator(REWARDS, PEERS)).max() > 0.3


@pytest.mark.parametrize("name", REFUSING)
def test_sets_of_one_are_refused(name):
    with pytest.raises(ValueError, match="set 5 has one member"):
        BY_SET[name](np.array([1.0, 0.0, 1.0]), np.array([2, 2, 5]))


@pytest.mark.parametrize("estimator", BY_SET.values(), ids=BY_SET)
def test_rewards_that_are_not_finite_are_refused(estimator):
    with pytest.raises(ValueError, match="the one at 1 is not"):
        estimator(np.array([1.0, np.nan]), np.array([2, 2]))


@pytest.mark.parametrize("estimator", BY_SET.values(), ids=BY_SET)
def test_no_trajectories_give_no_advantages(estimator):
    assert estimator(np.zeros(0), np.zeros(0, np.int64)).shape == (0,)


def test_running_baseline_is_read_before_it_is_moved():
    """One play at a time it is the recursion itself: b 0, .1, .19; of another key untouched."""
    baselines = {"nim/second": 4.0}
    seen = [estimators.running_baseline(np.array([1.0]), ["nim/first"], baselines, 0.9)[0] for _ in range(3)]
    assert seen == pytest.approx([1.0, 0.9, 0.81])
    assert baselines == pytest.approx({"nim/first": 0.271, "nim/second": 4.0})


def test_running_baseline_of_several_plays_at_once():
    """All read what stood before; then two rewards of mean 0.5 move b from 0.2 to .81 * .2 + .19 * .5."""
    baselines = {"a": 0.2}
    advantages = estimators.running_baseline(np.array([1.0, -1.0, 0.0]), ["a", "b", "a"], baselines, 0.9)
    assert advantages == pytest.approx([0.8, -1.0, -0.2])
    assert baselines == pytest.approx({"a": 0.257, "b": -0.1})
    assert all(type(key) is str and type(value) is float for key, value in baselines.items())  # JSON-able
    swapped = {"a": 0.2}
    estimators.running_baseline(np.array([0.0, 1.0, -1.0]), ["a", "a", "b"], swapped, 0.9)
    assert swapped == pytest.approx(baselines)


def test_running_baseline_refuses_what_is_not_finite_before_it_moves_anything():
    baselines = {"a": 0.5}
    with pytest.raises(ValueError, match="the one at 1 is not"):
        estimators.running_baseline(np.array([1.0, np.inf]), ["a", "a"], baselines, 0.9)
    assert baselines == {"a": 0.5}
    assert estimators.running_baseline(np.zeros(0), [], baselines, 0.9).shape == (0,)


def test_variance_that_a_baseline_of_each_role_takes_off():
    """Payoffs of +-1 and a role that wins with v = 0.6 on average: variance ratio 1 / (1 - v^2) = 1.5625."""
    generator = np.random.default_rng(0)
    rewards = np.where(generator.random(20_000) < 0.8, 1.0, -1.0)
    baselines = {"nim/first": 0.6}
    advantages = estimators.running_baseline(rewards, ["nim/first"] * len(rewards), baselines, 0.95)
    assert (rewards**2).mean() / (advantages**2).mean() == pytest.approx(1.5625, rel=0.02)


def test_normalise_by_key():
    rewards, keys = np.array([1.0, 5.0, 0.0, 3.0, 9.0]), ["add/solve", "add/propose", "add/solve", "add/propose", "mul"]
    assert estimators.normalise_by_key(rewards, keys) == pytest.approx([1, 1, -1, -1, 0], rel=1e-5)


def test_normalise_by_key_needs_one_key_that_came_up_twice():
    with pytest.raises(ValueError, match="each of the 2 trajectories"):
        estimators.normalise_by_key(np.array([1.0, 0.0]), ["a", "b"])


def test_returns_to_go():
    assert estimators.returns_to_go(np.array([1.0, -0.5, 2.0])).tolist() == [2.5, 1.5, 2.0]
    assert estimators.returns_to_go(np.zeros(0)).shape == (0,)


def test_generalised_advantages_by_hand():
    """delta = (0 + .9 * .25 - .5, 1 - .25) = (-.275, .75); A = (-.275 + .72 * .75, .75)."""
    advantages, returns = estimators.generalised_advantages(np.array([0.0, 1.0]), np.array([0.5, 0.25]), 0.9, 0.8)
    assert advantages == pytest.approx([0.265, 0.75])
    assert returns == pytest.approx([0.765, 1.0])


def test_generalised_advantages_at_the_ends_of_lambda():
    rewards, values = np.array([1.0, 0.0, 2.0]), np.array([0.3, 0.7, 0.1])
    advantages, returns = estimators.generalised_advantages(rewards, values, 1.0, 1.0)
    assert returns == pytest.approx([3, 2, 2])  # the returns to go themselves
    assert advantages == pytest.approx([2.7, 1.3, 1.9])
    advantages, _ = estimators.generalised_advantages(rewards, values, 1.0, 0.0)
    assert advantages == pytest.approx([1 + 0.7 - 0.3, 0.1 - 0.7, 2 - 0.1])  # one step's surprise
    assert [part.shape for part in estimators.generalised_advantages(np.zeros(0), np.zeros(0), 1.0, 1.0)] == [(0,)] * 2


def test_whiten_over_ranks():
    """Ranks with [1, 3], [5] and nothing: mean 3, variance 8 / 3."""
    ranks = [np.array([1.0, 3.0]), np.array([5.0]), np.zeros(0)]
    sums = [np.array([3.0, 9.0]), np.array([8.0])]  # what the all-reduces say
    deviation = math.sqrt(8 / 3)
    for values, expected in zip(ranks, ([-2, 0], [2], []), strict=True):
        answers = iter(sums)
        asked = []

        def total(part, answers=answers, asked=asked):
            asked.append(part)
            return next(answers)

        assert estimators.whiten(values, total) * deviation == pytest.approx(expected, rel=1e-5)
        assert asked[0].tolist() == [len(values), values.sum()]
        assert asked[1] == pytest.approx([((values - 3) ** 2).sum()])


def test_whitening_equal_values_leaves_nothing():
    assert np.abs(estimators.whiten(np.full(7, 0.1), one_rank)).max() < 1e-9
    assert not estimators.whiten(np.zeros(5), one_rank).any()
