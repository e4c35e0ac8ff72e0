"""What falls on the single actions of a trajectory, by hand."""

import math

import numpy as np
import pytest
from helpers.played import one_rank, outcomes, trajectory

from rlpt.algorithms import token_credit
from rlpt.algorithms.grpo import GRPO
from rlpt.algorithms.ppo import PPO
from rlpt.algorithms.reinforce_plus_plus import ReinforcePlusPlus
from rlpt.algorithms.rloo import RLOO

MASK = [0, 1, 1, 0, 1]
LOGPROBS = [0.0, -1.0, -2.0, 0.0, -0.5]
REFERENCE = [0.0, -1.5, -1.0, 0.0, -0.5]  # log(sampler / reference) = .5, -1, 0


def test_rewards_of_actions_sum_to_the_reward():
    assert token_credit.action_rewards(trajectory(MASK, 2.0)).tolist() == [0, 0, 2]
    placed = trajectory(MASK, 2.0, token_rewards=[0.0, 0.25, 0.0, 0.0, 0.5])
    assert token_credit.action_rewards(placed) == pytest.approx([0.25, 0, 1.75])
    assert placed.token_rewards.tolist() == [0.0, 0.25, 0.0, 0.0, 0.5]  # left as it was
    assert token_credit.action_rewards(trajectory([0, 0], 2.0)).shape == (0,)


def test_kl_of_actions():
    played = trajectory(MASK, logprobs=LOGPROBS, ref_logprobs=REFERENCE)
    assert token_credit.action_kl(played, "k1") == pytest.approx([0.5, -1, 0])
    assert token_credit.action_kl(played, "k2") == pytest.approx([0.125, 0.5, 0])
    assert token_credit.action_kl(played, "k3") == pytest.approx([math.exp(-0.5) - 0.5, math.e - 2, 0])
    with pytest.raises(AssertionError, match="reference"):
        token_credit.action_kl(trajectory(MASK), "k1")


def test_whitened_advantages_lie_at_the_actions():
    first, second = trajectory([0, 1, 1]), trajectory([1, 0])
    token_credit.set_whitened([first, second], [np.array([1.0, 3.0]), np.array([5.0])], one_rank)
    scale = math.sqrt(8 / 3)
    assert first.token_advantages == pytest.approx([0, -2 / scale, 0], rel=1e-5)
    assert second.token_advantages == pytest.approx([2 / scale, 0], rel=1e-5)
    assert first.token_advantages.dtype == np.float32
    token_credit.set_whitened([first], [np.array([1.0, 3.0])], one_rank, whiten=False)
    assert first.token_advantages.tolist() == [0, 1, 3]


def test_a_rank_without_trajectories_takes_part_in_the_sums():
    asked = []
    token_credit.set_whitened([], [], lambda values: asked.append(values) or values)
    assert [len(values) for values in asked] == [2, 1]


def test_kl_in_the_reward_of_a_whole_trajectory():
    played = trajectory(MASK, 2.0, logprobs=LOGPROBS, ref_logprobs=REFERENCE)
    assert RLOO(kl_coefficient=0.1).reward(played) == pytest.approx(2 - 0.1 * -0.5)
    assert RLOO(kl_coefficient=0.1, kl_estimator="k2").reward(played) == pytest.approx(2 - 0.1 * 0.625)
    assert GRPO(kl_coefficient=0.1).reward(played) == 2.0  # in the loss
    assert RLOO().reward(trajectory(MASK, 2.0)) == 2.0
    assert RLOO(kl_coefficient=0.1).needs_reference
    assert not RLOO(kl_coefficient=0.1).needs_silent


def test_reinforce_plus_plus_by_hand():
    """Rewards 2 and 0 of 3 actions and 1; at coefficient .1 the returns to go are 2.05, 2.1, 2 and -.3."""
    algorithm = ReinforcePlusPlus(kl_coefficient=0.1)
    good = trajectory(MASK, 2.0, logprobs=LOGPROBS, ref_logprobs=REFERENCE)
    bad = trajectory([0, 1], 0.0, logprobs=[0.0, -1.0], ref_logprobs=[0.0, -4.0])
    rewards = [algorithm.reward(good), algorithm.reward(bad)]
    assert rewards == [2.0, 0.0]
    good.advantage, bad.advantage = algorithm.advantages(outcomes(rewards), {})
    assert [good.advantage, bad.advantage] == [1.0, -1.0]
    algorithm.credit([good, bad], one_rank)
    returns = np.array([2.05, 2.1, 2.0, -0.3])
    expected = (returns - returns.mean()) / returns.std()
    assert good.token_advantages == pytest.approx([0, expected[0], expected[1], 0, expected[2]], rel=1e-5)
    assert bad.token_advantages == pytest.approx([0, expected[3]], rel=1e-5)


def test_reinforce_plus_plus_with_the_peers_as_baseline():
    """Two problems, of rewards 1, 0 and 5, 5: less their means .5, -.5, 0, 0, of std sqrt(1/8)."""
    algorithm = ReinforcePlusPlus(baseline="group")
    trajectories = [trajectory([1], reward) for reward in (1.0, 0.0, 5.0, 5.0)]
    advantages = algorithm.advantages(outcomes([1.0, 0, 5, 5], peers=[0, 0, 1, 1]), {})
    for one, advantage in zip(trajectories, advantages, strict=True):
        one.advantage = float(advantage)
    algorithm.credit(trajectories, one_rank)
    found = [float(one.token_advantages[0]) for one in trajectories]
    assert found == pytest.approx([math.sqrt(2), -math.sqrt(2), 0, 0], rel=1e-5)
    assert found[2:] == [0, 0]


def test_ppo_by_hand():
    """Actions with rewards 0 - .05 and 1 - .1 (k1 .5 and 1 at .1) and values .5, .25; gamma .9, lambda .8."""
    algorithm = PPO(kl_coefficient=0.1, gamma=0.9, lam=0.8, whiten=False)
    played = trajectory(
        [0, 1, 0, 1],
        1.0,
        logprobs=[0.0, -1.0, 0.0, -1.0],
        ref_logprobs=[0.0, -1.5, 0.0, -2.0],
        values=[9.0, 0.5, 9.0, 0.25],
    )
    assert algorithm.reward(played) == 1.0
    algorithm.credit([played], one_rank)
    last = 0.9 - 0.25
    first = -0.05 + 0.9 * 0.25 - 0.5 + 0.72 * last
    assert played.token_advantages == pytest.approx([0, first, 0, last])
    assert played.returns == pytest.approx([0, first + 0.5, 0, 0.9])


def test_ppo_puts_token_rewards_where_they_fell():
    algorithm = PPO(kl_coefficient=0.0, lam=1.0, whiten=False)
    played = trajectory([1, 1, 1], 1.0, token_rewards=[0.5, 0.0, 0.0], values=[0.0, 0.0, 0.0])
    algorithm.credit([played], one_rank)
    assert played.returns.tolist() == [1.0, 0.5, 0.5]


def test_ppo_whitens_over_all_trajectories():
    algorithm = PPO(kl_coefficient=0.0)
    trajectories = [trajectory([1], reward, values=[0.5]) for reward in (0.0, 1.0, 1.0)]
    algorithm.credit(trajectories, one_rank)  # advantages -.5, .5, .5 of mean 1/6 and std sqrt(2)/3
    found = [float(one.token_advantages[0]) for one in trajectories]
    assert found == pytest.approx([-math.sqrt(2), math.sqrt(0.5), math.sqrt(0.5)], rel=1e-5)
    assert [float(one.returns[0]) for one in trajectories] == [0, 1, 1]
