"""The rubric and its first parts."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

import rlpt.rewards  # noqa: F401  (registers)
from rlpt.errors import ConfigError, TrainingError
from rlpt.rewards.base import Reward, Rubric, RubricPart
from rlpt.rewards.correct import Correct
from rlpt.rewards.format import Format
from rlpt.types import Episode, Problem, Trajectory

PROBLEM = Problem("reverse", 1, 1, "reverse 12", "21")


def episode(text, outcome=0.0, truncated=False, role="solver"):
    empty = np.zeros(0)
    trajectory = Trajectory(role, 1, empty, empty.astype(bool), empty, truncated=truncated)
    return Episode(PROBLEM, [trajectory], {"solver": outcome}, text)


def value(reward, played):
    return reward(PROBLEM, played.trajectories[0], played)


@dataclass(frozen=True)
class Constant:
    value: float

    def __call__(self, problem, trajectory, episode):
        return self.value


def test_default_rubric_keeps_its_parts():
    played = episode("<|answer|>21<|end|>", outcome=0.45)
    Rubric.from_config().score(played)
    assert played.trajectories[0].rewards == {"correct": 0.45, "format": 1.0}
    assert played.trajectories[0].reward == pytest.approx(0.55)


def test_weights_and_options():
    rubric = Rubric.from_config(
        [{"name": "correct", "weight": 2, "exact_bonus": 0.5}, {"name": "format", "weight": -1.0}]
    )
    played = episode("<|answer|>21<|end|>", outcome=1.0)
    rubric.score(played)
    assert played.trajectories[0].reward == pytest.approx(2 * 1.5 - 1)
    assert value(Correct(exact_bonus=0.5), episode("", outcome=0.9)) == 0.9, "the bonus is for exact answers"


@pytest.mark.parametrize(
    ("well_formed", "truncated", "expected"), [(1.0, False, 1), (0.75, False, 0.75), (1.0, True, 0)]
)
def test_format_is_the_share_of_well_formed_turns(well_formed, truncated, expected):
    played = episode("", truncated=truncated)
    played.trajectories[0].well_formed = well_formed
    assert value(Format(), played) == expected


def test_what_a_part_raises_is_raised():
    with pytest.raises(KeyError, match="proposer"):
        Rubric.from_config().score(episode("", role="proposer"))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_part_that_is_not_finite_is_an_error(bad):
    assert isinstance(Constant(bad), Reward)
    with pytest.raises(TrainingError, match="reward 'odd' is"):
        Rubric((RubricPart("odd", Constant(bad)),)).score(episode(""))


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], r"play\.rubric: empty; known rewards: correct, format"),
        ([{"name": "corect"}], r"play\.rubric\.0\.name: unknown reward 'corect'; did you mean 'correct'"),
        ([{"name": "correct", "weight": "much"}], r"play\.rubric\.0\.weight: must be a finite number"),
        ([{"name": "correct", "weight": math.nan}], r"play\.rubric\.0\.weight: must be a finite number"),
        ([{"name": "correct", "bonus": 1}], r"play\.rubric\.0\.bonus: unknown key; did you mean 'exact_bonus'"),
        ([{"name": "correct"}, {"name": "correct"}], r"play\.rubric\.1\.name: 'correct' is given twice"),
        ([{"weight": 1}], r"play\.rubric\.0\.name: missing"),
    ],
)
def test_wrong_rubrics_name_the_key(specs, message):
    with pytest.raises(ConfigError, match=message):
        Rubric.from_config(specs, "play.rubric")
