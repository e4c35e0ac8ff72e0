"""The verifier's credit, and a verifier that errs."""

import numpy as np
import pytest
from helpers.episodes import PROBLEM, answering

from rlpt.errors import ConfigError
from rlpt.registry import create
from rlpt.rewards.correct import Correct


def of(reward, number, outcome):
    played = answering(f"{number}<|end|>", outcome)
    return reward(PROBLEM, played.trajectories[0], played)


def test_credit_bonus_and_exactness():
    assert [of(Correct(), 1, outcome) for outcome in (0.0, 0.45, 1.0)] == [0, 0.45, 1]
    assert [of(Correct(exact_bonus=0.5), 1, outcome) for outcome in (0.9, 1.0)] == [0.9, 1.5]
    assert [of(Correct(exact_only=True), 1, outcome) for outcome in (0.9, 1.0)] == [0, 1]


def test_one_role_alone_and_a_score_of_its_own():
    played = answering("1<|end|>", 0.5)
    (trajectory,) = played.trajectories
    assert Correct(role=trajectory.role)(PROBLEM, trajectory, played) == 0.5
    assert Correct(role="proposer")(PROBLEM, trajectory, played) == 0
    trajectory.outcome = 1.0
    assert Correct()(PROBLEM, trajectory, played) == 1, "its own score comes before its role's"
    trajectory.outcome, trajectory.role = None, "proposer"
    with pytest.raises(KeyError, match="proposer"):
        Correct()(PROBLEM, trajectory, played)


def test_flip_exchanges_right_and_wrong():
    always = Correct(flip=1.0, exact_bonus=0.5)
    assert [of(always, 1, outcome) for outcome in (0.0, 0.9, 1.0)] == [1.5, 1.5, 0]


@pytest.mark.parametrize("flip", [0.2, 0.7])
def test_flip_comes_as_often_as_asked(flip):
    reward, draws = Correct(flip=flip), 2000
    for outcome in (0.0, 1.0):
        flipped = np.array([of(reward, number, outcome) != outcome for number in range(draws)])
        assert abs(flipped.mean() - flip) < 4 * (flip * (1 - flip) / draws) ** 0.5
    assert [of(reward, number, 1.0) for number in range(50)] == [of(reward, number, 1.0) for number in range(50)]


def test_flip_is_keyed_by_seed_and_tokens():
    reward, outcomes = Correct(flip=0.5), []
    for seed in range(64):
        problem = PROBLEM.__class__("reverse", seed, 1, "reverse 12", "21")
        played = answering("21<|end|>", 1.0, problem)
        outcomes.append(reward(problem, played.trajectories[0], played))
    assert 10 < sum(outcomes) < 54


def test_a_flip_is_a_probability():
    with pytest.raises(ConfigError, match=r"flip=1\.2: must be between 0 and 1"):
        create("reward", {"name": "correct", "flip": 1.2})
