"""Process rewards from a task's own step verifier: credit for the steps of a thought, not for its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.base import RewardContext
from rlpt.rewards.trace import on_grid, steps, task_of, turns
from rlpt.types import Episode, Problem, Trajectory

Measure = Literal["mean", "all", "until_first_error"]


@register("reward", "process")
@dataclass(frozen=True)
class Process:
    """What `Task.verify_steps` says of the thought's steps, the words between its spaces; 0 without any.

        mean                share of right steps
        all                 1 where every step is right, else 0
        until_first_error   share of steps before the first wrong one

    One right step and no more is a whole thought to these shares. With `per: solution` they are taken of the worked
    solution's number of steps where that is more. With `dense`, each step's part of the measure falls on its last token
    (that of `all` on the last step's), and the sum is the same.
    """

    measure: Measure = "mean"
    per: Literal["written", "solution"] = "written"
    dense: bool = False

    def __post_init__(self) -> None:
        if self.measure == "all" and self.per == "solution":
            raise ConfigError("per=solution with measure=all: it is no share")

    def over(self, episodes: Sequence[Episode], context: RewardContext) -> list[list[float | np.ndarray]]:
        """In [0, 1]. Raises ConfigError where there is no task to ask, or no single thought."""
        return [[self._value(episode.problem, one, context) for one in episode.trajectories] for episode in episodes]

    def _value(self, problem: Problem, trajectory: Trajectory, context: RewardContext) -> float | np.ndarray:
        task, thoughts = task_of(problem, context, "process"), turns(trajectory, context.tokenizer)
        if len(thoughts) > 1:
            raise ConfigError(
                f"reward 'process': '{problem.task}' was played in {len(thoughts)} turns, and steps are those of one "
                "thought; take it out of the rubric"
            )
        thought = thoughts[0].thought if thoughts else np.zeros(0, np.int64)
        text, ends = steps(context.tokenizer, trajectory.token_ids, thought)
        marks = np.array(task.verify_steps(problem, text), np.float64)
        assert len(marks) == len(ends), f"task {problem.task}: {len(marks)} verdicts on {len(ends)} steps of {text!r}"
        least = len(task.solution(problem).split()) if self.per == "solution" else 1
        credits = step_credits(marks, self.measure, max(len(marks), least))
        if not self.dense:
            return float(credits.sum())
        tokens = np.zeros(len(trajectory.token_ids))
        tokens[ends] = credits
        return tokens


def step_credits(marks: np.ndarray, measure: Measure, num_steps: int) -> np.ndarray:
    """Verdicts [S] f64, each 1 or 0 -> what each step adds to the measure, [S] f64; shares are of `num_steps`."""
    if measure == "all":
        credits = np.zeros(len(marks))
        credits[-1:] = float(marks.all())
        return credits
    counted = marks if measure == "mean" else np.cumprod(marks)
    return np.diff(on_grid(np.cumsum(counted) / num_steps), prepend=0.0)
