"""The rubric: a weighted sum that keeps its parts, over whole plays and single tokens."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from helpers.episodes import TOKENIZER, answering

import rlpt.rewards  # noqa: F401  (registers)
from rlpt.config_objectives import Ramp
from rlpt.errors import ConfigError, TrainingError
from rlpt.rewards.base import PlayReward, Reward, RewardContext, Rubric, RubricPart
from rlpt.rewards.format import Format


def episode(outcome=0.0, written="21<|end|>", **options):
    return answering(written, outcome, **options)


def value(reward, played):
    return reward(played.problem, played.trajectories[0], played)


@dataclass(frozen=True)
class Constant:
    value: float

    def __call__(self, problem, trajectory, episode):
        return self.value


@dataclass(frozen=True)
class PerToken:
    """`values[i]` falls on the last token of the i-th trajectory's actions; keeps the contexts it got."""

    values: tuple
    contexts: list = field(default_factory=list)

    def over(self, episodes, context):
        self.contexts.append(context)
        found, values = [], iter(self.values)
        for played in episodes:
            found.append([])
            for trajectory in played.trajectories:
                tokens = np.zeros(len(trajectory.token_ids))
                tokens[np.flatnonzero(trajectory.action_mask)[-1]] = next(values)
                found[-1].append(tokens)
        return found


@dataclass(frozen=True)
class Place:
    """The place in the play: looks at all of it at once."""

    def over(self, episodes, context):
        places = iter(range(99))
        return [[float(next(places)) for _ in played.trajectories] for played in episodes]


def test_default_rubric_keeps_its_parts():
    played = [episode(0.45), episode(1.0, well_formed=0.5)]
    Rubric.from_config().score(played)
    first, second = (one.trajectories[0] for one in played)
    assert first.rewards == {"correct": 0.45, "format": 1.0}
    assert first.reward == pytest.approx(0.55)
    assert second.reward == pytest.approx(1.05)
    assert first.token_rewards is None, "all of it falls on the last action"


def test_weights_labels_and_options():
    rubric = Rubric.from_config(
        [
            {"name": "correct", "weight": 2, "exact_bonus": 0.5},
            {"name": "format", "weight": -1.0},
            {"name": "correct", "weight": 0, "exact_only": True, "label": "exact"},
        ]
    )
    played = episode(outcome=1.0)
    rubric.score([played])
    assert played.trajectories[0].reward == pytest.approx(2 * 1.5 - 1)
    assert played.trajectories[0].rewards == {"correct": 1.5, "format": 1, "exact": 1}


def test_a_weight_may_be_a_ramp_over_steps():
    ramp = {"start": 2.0, "end": 0.0, "steps": 10, "begin": 5}
    rubric = Rubric.from_config([{"name": "correct", "weight": ramp}])
    assert rubric.parts[0].weight == Ramp(**ramp)
    for step, expected in ((0, 2), (5, 2), (10, 1), (15, 0), (99, 0)):
        played = episode(outcome=0.5)
        rubric.score([played], step=step)
        assert played.trajectories[0].reward == pytest.approx(expected * 0.5)
        assert played.trajectories[0].rewards == {"correct": 0.5}, "parts are kept without their weights"


def test_a_part_may_look_at_a_whole_play():
    played = [episode(), episode(), episode()]
    assert isinstance(Place(), PlayReward)
    assert not isinstance(Place(), Reward)
    Rubric((RubricPart("place", Place(), 0.5),)).score(played)
    assert [one.trajectories[0].reward for one in played] == [0, 0.5, 1]


def test_parts_may_credit_tokens():
    played, context = [episode(), episode()], RewardContext(tokenizer=TOKENIZER)
    twice, once = PerToken((1.0, -2.0)), PerToken((3.0, 4.0))
    parts = (RubricPart("a", twice, 2.0), RubricPart("whole", Constant(7.0)), RubricPart("b", once))
    Rubric(parts).score(played, context)
    assert twice.contexts == [context]
    for one, reward, credit in zip(played, (2 + 7 + 3, -4 + 7 + 4), (5, 0)):
        trajectory = one.trajectories[0]
        assert trajectory.reward == reward
        assert trajectory.token_rewards.shape == trajectory.token_ids.shape
        assert trajectory.token_rewards.sum() == credit, "weighted, and without the part that has no place"
    assert played[1].trajectories[0].rewards == {"a": -2, "whole": 7, "b": 4}


def test_scoring_again_starts_afresh():
    played = episode(outcome=0.5)
    Rubric((RubricPart("old", PerToken((3.0,))),)).score([played])
    Rubric.from_config([{"name": "correct"}]).score([played])
    trajectory = played.trajectories[0]
    assert (trajectory.reward, trajectory.rewards, trajectory.token_rewards) == (0.5, {"correct": 0.5}, None)


@pytest.mark.parametrize(
    ("well_formed", "truncated", "expected"), [(1.0, False, 1), (0.75, False, 0.75), (1.0, True, 0)]
)
def test_format_is_the_share_of_well_formed_turns(well_formed, truncated, expected):
    assert value(Format(), episode(well_formed=well_formed, truncated=truncated)) == expected


def test_what_a_part_raises_is_raised():
    played = episode(role="proposer")
    played.outcome = {"solver": 1.0}
    with pytest.raises(KeyError, match="proposer"):
        Rubric.from_config().score([played])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_part_that_is_not_finite_is_an_error(bad):
    assert isinstance(Constant(bad), Reward)
    for reward in (Constant(bad), PerToken((bad,))):
        with pytest.raises(TrainingError, match="reward 'odd' is"):
            Rubric((RubricPart("odd", reward),)).score([episode()])


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], r"play\.rubric: empty; known rewards: correct, cosine_length"),
        ([{"name": "corect"}], r"play\.rubric\.0\.name: unknown reward 'corect'; did you mean 'correct'"),
        ([{"name": "correct", "weight": "much"}], r"play\.rubric\.0\.weight: must be a finite number"),
        ([{"name": "correct", "weight": math.nan}], r"play\.rubric\.0\.weight: must be a finite number"),
        ([{"name": "correct", "weight": {"start": 1, "end": 0}}], r"play\.rubric\.0\.weight\.steps: Field required"),
        ([{"name": "correct", "bonus": 1}], r"play\.rubric\.0\.bonus: unknown key; did you mean 'exact_bonus'"),
        ([{"name": "correct"}, {"name": "correct"}], r"play\.rubric\.1\.name: 'correct' is given twice"),
        (
            [{"name": "format"}, {"name": "correct", "label": "format"}],
            r"play\.rubric\.1\.name: 'format' is given twice",
        ),
        ([{"weight": 1}], r"play\.rubric\.0\.name: missing"),
    ],
)
def test_wrong_rubrics_name_the_key(specs, message):
    with pytest.raises(ConfigError, match=message):
        Rubric.from_config(specs, "play.rubric")
