"""Rewards of length, by hand."""

import numpy as np
import pytest
from helpers.episodes import PROBLEM, thinking

from rlpt.errors import ConfigError
from rlpt.registry import create
from rlpt.rewards.length import CosineLength, Overlong
from rlpt.types import Episode, Trajectory


def of(reward, length, outcome=0.0, truncated=False):
    ids = np.zeros(length + 3, np.int64)
    trajectory = Trajectory("solver", 1, ids, np.arange(length + 3) >= 3, ids.astype(np.float32), truncated=truncated)
    return reward(PROBLEM, trajectory, Episode(PROBLEM, [trajectory], {"solver": outcome}))


def test_cosine_goes_from_one_end_to_the_other():
    reward = CosineLength(limit=40)
    assert [of(reward, length, 1.0) for length in (0, 10, 20)] == pytest.approx([2, 1 + (1 + 0.5**0.5) / 2, 1.5])
    assert [of(reward, length, 0.9) for length in (0, 20, 30)] == pytest.approx([-10, -5, -5 * (1 - 0.5**0.5)])


def test_short_right_answers_and_long_wrong_ones_do_better():
    reward = CosineLength(limit=40)
    right, wrong = ([of(reward, length, outcome) for length in range(40)] for outcome in (1.0, 0.0))
    assert right == sorted(right, reverse=True)
    assert wrong == sorted(wrong)
    assert min(right) > max(wrong)


def test_at_the_limit_and_cut_short_both_are_exceeded():
    reward = CosineLength(limit=40, exceeded=-3.0)
    assert of(reward, 40, 1.0) == of(reward, 60, 0.0) == of(reward, 5, 1.0, truncated=True) == -3


def test_overlong_falls_in_its_buffer():
    reward = Overlong(limit=20, buffer=8)
    assert [of(reward, length) for length in (0, 12, 13, 16, 20, 21, 99)] == [0, 0, -0.125, -0.5, -1, -1, -1]
    assert of(reward, 13, 1.0) == -0.125, "whatever the answer is worth"


def test_only_actions_are_counted():
    episode = thinking("1234<|answer|>21<|end|>")
    assert Overlong(limit=8, buffer=4)(PROBLEM, episode.trajectories[0], episode) == -1
    assert Overlong(limit=16, buffer=8)(PROBLEM, episode.trajectories[0], episode) == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "cosine_length", "limit": 0}, "limit=0: must be at least 1 token"),
        ({"name": "cosine_length"}, r"part\.limit: Field required"),
        ({"name": "overlong", "limit": 4, "buffer": 5}, "limit=4, buffer=5: need 1 <= buffer <= limit"),
        ({"name": "overlong", "limit": 4, "buffer": 0}, "need 1 <= buffer"),
    ],
)
def test_impossible_limits_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        create("reward", spec, "part")
