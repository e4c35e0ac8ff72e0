"""One data set of reasoning-gym as a task: `reasoning_gym.gcd` asks `Find the Greatest Common Divisor ...` -> `12`.

The training process makes no item and runs no verifier: both happen in a worker (`worker.py`), each answer in a
confined child (`rlpt.tasks.confinement`). Credit is 1 or 0. Where a problem has one right answer whose form the prompt
fixes (`exact` in the catalogue), right is what equals it, and nothing is run; else right is what the package's verifier
gives exactly 1, once length and alphabet have been looked at here and, for verifiers that evaluate answers or read on
past a wrong form, the form. The package's partial scores are not used: many go to any text at all, or to a right answer
in the midst of others, which a policy would learn to write.

A level is a number of increments of the data set's own curriculum; above the last that keeps items small and fast, it
is that one. Prompts may be long and hold several lines. There is no worked trace, so `solution` is the answer itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import Task
from rlpt.tasks.reasoning_gym.catalogue import DATA_SETS, DataSet
from rlpt.tasks.reasoning_gym.client import CLIENT, WorkerError
from rlpt.types import Problem

DRAWS = 64  # seeds tried for one problem: in 217 000 items 1 in 700 was refused, at the worst level 2 in 3
SEED_BITS = 32  # numpy's global generator takes no more


@dataclass(frozen=True)
class ReasoningGymTask(Task):
    """Items, levels and verdicts of the data set that a subclass names."""

    source: ClassVar[str] = "reasoning_gym"
    most_steps: ClassVar[int] = 2048  # an answer is its own trace, and some are whole matrices
    data_set: ClassVar[str]
    traits: ClassVar[DataSet]

    def answer_limit(self, level: int) -> int:
        """What the catalogue allows; see there."""
        return self.traits.limits[min(level, len(self.traits.limits) - 1)]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """The item of a seed drawn from `rng`, the first that the package makes and whose answer fits the limits."""
        for _ in range(DRAWS):
            seed = rng.getrandbits(SEED_BITS)
            item = CLIENT.item(self.data_set, self.increments(level), seed)
            if "refused" not in item and self._fits(item["answer"], level):
                return item["question"].strip(), item["answer"], {"seed": seed}
        raise WorkerError(f"task {self.name}: no usable item of level {level} among {DRAWS} seeds")

    def increments(self, level: int) -> int:
        """How many the curriculum of `level` has had."""
        return min(level, len(self.traits.limits) - 1)

    def solution(self, problem: Problem) -> str:
        """The answer: the package shows no way to it."""
        return problem.answer

    def grade(self, problem: Problem, answer: str) -> float:
        """1 or 0; see the module."""
        if self.traits.exact:
            return float(answer == problem.answer)
        if not self._has_form(answer):
            return 0.0
        return float(CLIENT.score(self.data_set, self.increments(problem.level), problem.meta["seed"], answer) == 1)

    def _fits(self, answer: str, level: int) -> bool:
        return len(answer) <= self.answer_limit(level) and set(answer) <= set(self.alphabet) and self._has_form(answer)

    def _has_form(self, answer: str) -> bool:
        return not self.traits.form or re.fullmatch(self.traits.form, answer) is not None


for _name, _traits in DATA_SETS.items():
    _members = {
        "__doc__": f"Data set `{_name}` of reasoning-gym.",
        "__module__": __name__,
        "name": f"reasoning_gym.{_name}",
        "data_set": _name,
        "traits": _traits,
        "alphabet": _traits.characters,
        "thought_alphabet": _traits.characters,
        "unique_answer": _traits.exact,
        "max_level": 9 if len(_traits.limits) > 1 else 0,
    }
    register("task", f"reasoning_gym.{_name}")(type(f"ReasoningGym_{_name}", (ReasoningGymTask,), _members))
