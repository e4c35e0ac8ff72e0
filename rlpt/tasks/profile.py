"""How hard a task is and how fast: what a random policy and a solver that slips now and then reach, by level."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import harmonic_mean

from rlpt.tasks.base import RELIABILITY, Task, keyed_hash, train_seed
from rlpt.types import Problem

SECONDS = 0.3  # to profile all levels of a task
_LEAST_PROBLEMS = 2  # of a level, however slow: the first pays for what is built once, and no budget counts it
_STREAM = 0  # of training seeds that profiles draw from


@dataclass(frozen=True)
class LevelProfile:
    """One level of one task."""

    level: int
    random_success: float  # of a policy whose legal characters and end mark are equally likely
    reference_success: float  # of a solver that slips once in 100 units of effort
    problems_per_second: float  # made and verified, on one core
    answer_limit: int  # characters
    num_problems: int  # that the figures are means over


def random_success(task: Task, level: int, count: int) -> float:
    """Share of `count` problems that uniformly random answers solve exactly."""
    rng = _random_policy(task, level)
    return sum(task.verify(p, task.random_answer(p, rng)) == 1 for p in first_problems(task, level, count)) / count


def reference_success(task: Task, level: int, count: int) -> float:
    """Mean over `count` problems of the chance that the reference solver gets through without a slip."""
    return sum(RELIABILITY ** task.effort(problem) for problem in first_problems(task, level, count)) / count


def profile_level(task: Task, level: int, count: int = 0, seconds: float = SECONDS / 10) -> LevelProfile:
    """All figures of a level from the same `count` problems, or, for 0, from as many as fit into `seconds`."""
    rng = _random_policy(task, level)
    times: list[float] = []
    guessed, reached = 0, 0.0
    start = time.perf_counter()
    while (done := len(times)) < (count or _LEAST_PROBLEMS) or (not count and time.perf_counter() - start < seconds):
        begun = time.perf_counter()
        problem = task.sample(train_seed(_STREAM, done), level)
        task.verify(problem, problem.answer)
        times.append(time.perf_counter() - begun)
        start = start if done else time.perf_counter()
        guessed += task.verify(problem, task.random_answer(problem, rng)) == 1
        reached += RELIABILITY ** task.effort(problem)
    timed = times[1:] or times
    return LevelProfile(
        level=level,
        random_success=guessed / done,
        reference_success=reached / done,
        problems_per_second=len(timed) / sum(timed),
        answer_limit=task.answer_limit(level),
        num_problems=done,
    )


def profile(task: Task, count: int = 0, seconds: float = SECONDS) -> list[LevelProfile]:
    """All levels of a task, each from `count` problems, or, for 0, all within about `seconds`."""
    levels = range(task.max_level + 1)
    return [profile_level(task, level, count, seconds / len(levels)) for level in levels]


def throughput(levels: Iterable[LevelProfile]) -> float:
    """Problems/s of a stream in which each of the levels is equally likely: the harmonic mean of theirs."""
    return harmonic_mean(level.problems_per_second for level in levels)


def _random_policy(task: Task, level: int) -> random.Random:
    return random.Random(keyed_hash("random policy", task.name, level))


def first_problems(task: Task, level: int, count: int) -> list[Problem]:
    """The first of the training stream that profiles draw from."""
    return [task.sample(train_seed(_STREAM, index), level) for index in range(count)]
