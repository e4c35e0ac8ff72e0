"""Credit for steps, by the verdicts of a task whose right trace is known."""

import numpy as np
import pytest
from helpers.episodes import TOKENIZER, answering, thinking, trajectory_of, values

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.errors import ConfigError
from rlpt.registry import create
from rlpt.rewards.base import RewardContext, Rubric
from rlpt.rewards.process import Process, step_credits
from rlpt.tasks.base import create_task, train_seed
from rlpt.types import Episode

TASK = create_task({"name": "cumulative_sum"})
PROBLEM = TASK.sample(train_seed(1, 0), 4)
CONTEXT = RewardContext(tokenizer=TOKENIZER, tasks={TASK.name: TASK})
RIGHT = TASK.solution(PROBLEM).split()
WRONG = "x"


def trace(*steps):
    return thinking(" ".join(steps) + "<|answer|>1<|end|>", problem=PROBLEM)


def of(reward, *episodes):
    return values(reward, episodes, CONTEXT)


def test_the_task_has_steps_to_tell_apart():
    assert len(RIGHT) >= 4
    assert TASK.verify_steps(PROBLEM, " ".join([RIGHT[0], WRONG, RIGHT[2], WRONG])) == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [("mean", [1, 0.5, 0, 1, 0]), ("all", [1, 0, 0, 1, 0]), ("until_first_error", [1, 0.25, 0, 1, 0])],
)
def test_measures(measure, expected):
    episodes = [trace(*RIGHT), trace(RIGHT[0], WRONG, RIGHT[2], WRONG), trace(WRONG), trace(RIGHT[0]), trace()]
    assert of(Process(measure), *episodes) == expected
    dense = of(Process(measure, dense=True), *episodes)
    assert [tokens.sum() for tokens in dense] == pytest.approx(expected)


def test_shares_of_the_worked_solution():
    """Else one right step and no more is worth as much as all of them."""
    share = 1 / len(RIGHT)
    for measure in ("mean", "until_first_error"):
        reward = Process(measure, per="solution")
        assert of(reward, trace(*RIGHT), trace(RIGHT[0]), trace()) == pytest.approx([1, share, 0])
        longer = trace(*RIGHT, *[WRONG] * len(RIGHT))
        assert of(reward, longer) == of(Process(measure), longer) == [0.5]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [("mean", [0.25, 0, 0.25, 0]), ("until_first_error", [0.25, 0, 0, 0]), ("all", [0, 0, 0, 0])],
)
def test_dense_credit_falls_on_the_last_token_of_each_step(measure, expected):
    played = trace(RIGHT[0], WRONG, RIGHT[2], WRONG)
    (tokens,) = of(Process(measure, dense=True), played)
    trajectory = played.trajectories[0]
    assert tokens.shape == trajectory.token_ids.shape
    assert not tokens[~trajectory.action_mask].any()
    ends = np.cumsum([len(step) + 1 for step in (RIGHT[0], WRONG, RIGHT[2], WRONG)]) - 2
    written = tokens[trajectory.action_mask]
    assert written[ends].tolist() == expected
    assert np.count_nonzero(written) == np.count_nonzero(expected)


def test_all_falls_on_the_last_step():
    assert step_credits(np.ones(3), "all", 3).tolist() == [0, 0, 1]
    assert step_credits(np.zeros(0), "all", 1).tolist() == []


@pytest.mark.parametrize("measure", ["mean", "until_first_error"])
def test_equal_shares_have_equal_sums_to_the_last_bit(measure):
    """Divided by a standard deviation, what rounding leaves would become an advantage."""
    assert {step_credits(np.ones(num), measure, num).sum() for num in range(1, 60)} == {1.0}
    halves = {step_credits(np.array([1.0] * num + [0.0] * num), measure, 2 * num).sum() for num in range(1, 60)}
    assert halves == {0.5}
    thirds = {step_credits(np.array([1.0] * num + [0.0] * 2 * num), measure, 3 * num).sum() for num in range(1, 60)}
    assert len(thirds) == 1
    assert thirds.pop() == pytest.approx(1 / 3, abs=1e-9)


def test_a_rubric_adds_token_rewards():
    rubric = Rubric.from_config([{"name": "process", "dense": True, "weight": 2}, {"name": "correct"}])
    played = trace(*RIGHT)
    played.outcome["solver"] = 0.5
    rubric.score([played], CONTEXT)
    trajectory = played.trajectories[0]
    assert trajectory.rewards == pytest.approx({"process": 1, "correct": 0.5})
    assert trajectory.reward == pytest.approx(2.5)
    assert trajectory.token_rewards.sum() == pytest.approx(2), "the rest falls on the last action"


def test_without_a_thought_there_are_no_steps():
    assert of(Process(), answering("1<|end|>", problem=PROBLEM)) == [0]


def test_what_has_no_steps_to_verify_is_refused():
    talk = trajectory_of("<|prompt|>x<|turn|>", "a<|end|>", "<|result|>1<|turn|>", "c<|end|>")
    with pytest.raises(ConfigError, match="'cumulative_sum' was played in 2 turns"):
        of(Process(), Episode(PROBLEM, [talk], {"solver": 1.0}))
    with pytest.raises(ConfigError, match="reward 'process': there is no task 'reverse' to ask"):
        of(Process(), thinking("1"))
    with pytest.raises(ConfigError, match="per=solution with measure=all"):
        create("reward", {"name": "process", "measure": "all", "per": "solution"})
