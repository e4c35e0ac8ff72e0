"""Potential-based shaping: where it falls, and that it leaves the best policy of a small MDP alone."""

import numpy as np
import pytest
from helpers.episodes import TOKENIZER, answering, thinking

from rlpt.errors import ConfigError
from rlpt.registry import create
from rlpt.rewards.base import RewardContext
from rlpt.rewards.shaping import Shaping, potential_differences

LEFT, RIGHT = 0, 1


class PlaceHead:
    """Says of the state before token i that it is worth 100 + i; keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, token_ids, masks):
        self.asked.append([np.flatnonzero(mask).tolist() for mask in masks])
        return [np.where(mask, 100.0 + np.arange(len(mask)), 0).astype(np.float32) for mask in masks]


def shaped(*episodes, **options):
    head = PlaceHead()
    context = RewardContext(heads={"process": head}, tokenizer=TOKENIZER)
    found = Shaping(**options).over(episodes, context)
    assert len(head.asked) == 1, "one call for the whole play"
    return [tokens for (tokens,) in found], head.asked[0]


def test_differences_by_hand():
    assert potential_differences(np.array([3.0, 5.0, 4.0]), 0.5).tolist() == [-0.5, -3, -4]
    assert potential_differences(np.zeros(0), 1.0).tolist() == []


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.5])
def test_the_sum_telescopes(gamma):
    potentials = np.random.default_rng(0).normal(size=12)
    differences = potential_differences(potentials, gamma)
    assert np.sum(gamma ** np.arange(12) * differences) == pytest.approx(-potentials[0])
    assert np.abs(differences).min() > 0


def test_undiscounted_shaping_falls_on_the_ends_of_steps():
    played = thinking("12 3 <|answer|>21<|end|>")
    (tokens,), (states,) = shaped(played)
    mask = played.trajectories[0].action_mask
    start = int(np.flatnonzero(mask)[0])
    assert [state - start for state in states] == [0, 2, 4], "before the first action and after each step"
    assert tokens[mask].tolist() == [0, 2, 0, 2, 0, 0, 0, 0, -100 - (start + 4)]
    assert not tokens[~mask].any()
    assert tokens.sum() == -(100 + start), "all that it adds is the start's potential, the same for all attempts"


def test_discounted_shaping_is_potential_based_at_every_action():
    played = thinking("12 3 <|answer|>21<|end|>")
    (tokens,), _ = shaped(played, gamma=0.9)
    mask = played.trajectories[0].action_mask
    start = int(np.flatnonzero(mask)[0])
    held = 100.0 + start + np.array([0, 0, 2, 2, 4, 4, 4, 4, 4])
    assert tokens[mask] == pytest.approx(potential_differences(held, 0.9))


def test_a_thought_that_ends_with_its_last_step_and_one_without_steps():
    (ended, none), (first, second) = shaped(thinking("12 3"), answering("21<|end|>"))
    start = first[0]
    assert len(first) == 2, "after the last action comes the end, whose potential is 0"
    assert ended[ended != 0].tolist() == [2, -(100 + start + 2)]
    assert none[none != 0].tolist() == [-(100 + second[0])]


@pytest.mark.parametrize("seed", range(8))
def test_peers_get_equal_sums_to_the_last_bit_whatever_a_batch_rounds(seed):
    """Divided by a standard deviation, a difference of 1e-6 would become an advantage."""
    rng = np.random.default_rng(seed)

    def noisy_head(token_ids, masks):
        """Values of all sizes, whose f64 sums are rounded; another one each time for the same state."""
        values = [rng.normal(size=len(mask)) * 10.0 ** rng.uniform(-9, 4, len(mask)) for mask in masks]
        return [np.where(mask, value, 0).astype(np.float32) for mask, value in zip(masks, values)]

    peers = [thinking(thought + "<|answer|>21<|end|>") for thought in ("1 2 3 4 5 6 7", "12 34", "", "7 77 777 8 9")]
    context = RewardContext(heads={"process": noisy_head}, tokenizer=TOKENIZER)
    found = Shaping().over(peers, context)
    assert len({tokens.sum() for (tokens,) in found}) == 1
    assert len({tokens.max() for (tokens,) in found}) > 1


def test_a_head_that_is_not_there_and_a_wrong_discount():
    with pytest.raises(ConfigError, match="head=process: the model has no such head; known: value"):
        Shaping().over([], RewardContext(heads={"value": PlaceHead()}))
    with pytest.raises(ConfigError, match=r"gamma=1\.5"):
        create("reward", {"name": "shaping", "gamma": 1.5})


def best_policy(bonus, gamma):
    """Greedy policy of value iteration on a chain 0..4. Going left from 0 ends the walk for 1.1, going right from 4 for
    2; any other step costs 0.05; `bonus(s, s')` is added, with s' = 5 for the end."""
    after = np.array([[state - 1 if state else 5, state + 1] for state in range(5)])
    rewards = np.full((5, 2), -0.05)
    rewards[0, LEFT], rewards[4, RIGHT] = 1.1, 2.0
    rewards += [[bonus(state, after[state, action]) for action in (LEFT, RIGHT)] for state in range(5)]
    values = np.zeros(6)
    for _ in range(1000):
        table = rewards + gamma * values[after]
        values[:5] = table.max(axis=1)
    assert np.abs(table[:, LEFT] - table[:, RIGHT]).min() > 1e-3, "no ties"
    return table.argmax(axis=1).tolist()


@pytest.mark.parametrize("gamma", [0.5, 0.8, 0.9, 0.99])
def test_the_best_policy_stays_with_a_potential_and_not_with_any_bonus(gamma):
    plain = best_policy(lambda state, after: 0.0, gamma)
    for seed in range(20):
        potential = np.append(np.random.default_rng(seed).normal(scale=3, size=5), 0.0)

        def shaping(state, after, potential=potential):
            """The pair's F, as the reward computes it."""
            pair = potential[[state]] if after == 5 else potential[[state, after]]
            return potential_differences(pair, gamma)[0]

        assert best_policy(shaping, gamma) == plain
        assert any(abs(shaping(state, state + 1)) > 0.1 for state in range(5)), "it was no zero"
    wrong = best_policy(lambda state, after: float((state, after) == (1, 2)), gamma)
    assert wrong != plain
    assert wrong[1:3] == [RIGHT, LEFT], "paid for going from 1 to 2, the walk comes back to do it again"


def test_the_policy_of_the_chain_hangs_on_the_discount():
    plain = {gamma: best_policy(lambda state, after: 0.0, gamma) for gamma in (0.5, 0.8, 0.99)}
    assert plain[0.5] == [LEFT, LEFT, RIGHT, RIGHT, RIGHT]
    assert plain[0.99] == [RIGHT] * 5
    assert LEFT in plain[0.8]
