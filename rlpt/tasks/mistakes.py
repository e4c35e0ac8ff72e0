"""Mistakes that a task's own verifiers call mistakes: a wrong answer to a problem, a wrong step of its worked trace."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import product

from rlpt.errors import ConfigError
from rlpt.tasks.base import Task, characters_of, keyed_hash, train_seed
from rlpt.types import Problem

WRONG_ATTEMPTS = 16


def wrong_answer(task: Task, problem: Problem) -> str:
    """Every character moved on by one place in the task's alphabet: wrong in one way that can be learned. Where that is
    right or not understood, another problem's answer; where those are right, too, one character is another. Raises
    ConfigError where none is wrong."""
    alphabet = task.legal_characters(problem.level)
    following = {old: alphabet[(place + 1) % len(alphabet)] for place, old in enumerate(alphabet)}
    moved = "".join(following.get(character, character) for character in problem.answer)
    if task.verify(problem, moved) < 1.0:
        return moved
    key = keyed_hash("wrong answer", problem.prompt)
    for attempt in range(WRONG_ATTEMPTS):
        answer = task.sample(train_seed(key, attempt), problem.level).answer
        if task.verify(problem, answer) < 1.0:
            return answer
    for place, character in product(range(len(problem.answer)), alphabet):
        answer = problem.answer[:place] + character + problem.answer[place + 1 :]
        if task.verify(problem, answer) < 1.0:
            return answer
    raise ConfigError(f"task {task.name}: found no wrong answer to {problem}")


def is_right_step(task: Task, problem: Problem, before: Sequence[str], step: str) -> bool:
    """Whether the task's verifier calls `step` right after the steps `before`."""
    return task.verify_steps(problem, " ".join([*before, step]))[-1] == 1.0


def wrong_step(task: Task, problem: Problem, steps: Sequence[str], at: int, rng: random.Random) -> str:
    """A slip in place of `steps[at]`, which the task's verifier calls wrong there: one character is another of its
    kind.

    Slips are in the second half of a step, where results stand, and use characters of the prompt and the trace, as long
    as that gives a wrong step. Raises ConfigError where nothing does.
    """
    step, before = steps[at], steps[:at]
    seen = sorted(set(problem.prompt).union(*steps) & characters_of(task.thought_alphabet))
    results = [place for place in range(len(step) // 2, len(step)) if step[place].isalnum()]
    for _ in range(WRONG_ATTEMPTS if results else 0):
        place = rng.choice(results)
        others = _others(step[place], seen)
        changed = step[:place] + rng.choice(others) + step[place + 1 :] if others else step
        if changed != step and not is_right_step(task, problem, before, changed):
            return changed
    anywhere = [(place, other) for place in range(len(step)) for other in _others(step[place], task.thought_alphabet)]
    for place, other in rng.sample(anywhere, len(anywhere)):
        changed = step[:place] + other + step[place + 1 :]
        if not is_right_step(task, problem, before, changed):
            return changed
    raise ConfigError(f"task {task.name}: found no wrong step in place of '{step}' of {problem}")


def _others(character: str, characters: Sequence[str]) -> list[str]:
    """Other characters, of the same kind (digits, small letters, capitals) if there are any."""
    others = [other for other in characters if other != character and not other.isspace()]
    return [other for other in others if _kind(other) == _kind(character)] or others


def _kind(character: str) -> str:
    return next((kind for kind in ("isdigit", "islower", "isupper") if getattr(character, kind)()), "other")
