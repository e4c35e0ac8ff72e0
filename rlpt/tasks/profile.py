"""How hard a task is and how fast: what a random policy and a solver that slips now and then reach, by level."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from rlpt.tasks.base import RELIABILITY, Task, keyed_hash, train_seed
from rlpt.types import Problem

_STREAM = 0  # of training seeds that profiles draw from


@dataclass(frozen=True)
class LevelProfile:
    """One level of one task."""

    level: int
    random_success: float  # of a policy whose legal characters and end mark are equally likely
    reference_success: float  # of a solver that slips once in 100 units of effort
    problems_per_second: float  # made and verified, on one core
    answer_limit: int  # characters


def random_success(task: Task, level: int, count: int) -> float:
    """Share of `count` problems that uniformly random answers solve exactly."""
    rng = random.Random(keyed_hash("random policy", task.name, level))
    return sum(task.verify(p, task.random_answer(p, rng)) == 1 for p in _problems(task, level, count)) / count


def reference_success(task: Task, level: int, count: int) -> float:
    """Mean over `count` problems of the chance that the reference solver gets through without a slip."""
    return sum(RELIABILITY ** task.effort(problem) for problem in _problems(task, level, count)) / count


def problems_per_second(task: Task, level: int, seconds: float = 0.05) -> float:
    """Problems that are made, and their oracle's answers verified, in about `seconds`."""
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or count == 0:
        problem = task.sample(train_seed(_STREAM, count), level)
        task.verify(problem, problem.answer)
        count += 1
    return count / elapsed


def profile(task: Task, count: int = 200) -> list[LevelProfile]:
    """All levels of a task."""
    return [
        LevelProfile(
            level,
            random_success(task, level, count),
            reference_success(task, level, count),
            problems_per_second(task, level),
            task.answer_limit(level),
        )
        for level in range(task.max_level + 1)
    ]


def _problems(task: Task, level: int, count: int) -> list[Problem]:
    return [task.sample(train_seed(_STREAM, index), level) for index in range(count)]
