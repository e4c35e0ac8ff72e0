"""How often each of some digits occurs: `count 31413: 152` -> `200`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

LENGTHS = (2, 3, 4, 6, 8, 11, 14, 18, 24, 32)  # by level
SYMBOLS = (2, 3, 3, 4, 4, 5, 5, 6, 6, 6)  # by level
QUERIES = (1, 2, 2, 2, 3, 3, 4, 4, 5, 6)  # different digits asked about, by level
MOST = 9  # occurrences of a digit: each count is one digit


@register("task", "count")
@dataclass(frozen=True)
class Count(Task):
    """Level l: `QUERIES[l]` counts in `LENGTHS[l]` digits out of the first `SYMBOLS[l]`. Credit: share of counts right.

    At level 0 the count is 0, 1 or 2, guessed with the end mark: 1 in 16. It has few different problems.
    """

    name: ClassVar[str] = "count"
    thought_alphabet: ClassVar[str] = DIGITS + "@= "

    def legal_characters(self, level: int) -> str:
        """Counts that the length allows."""
        return DIGITS[: min(LENGTHS[level], MOST) + 1]

    def answer_limit(self, level: int) -> int:
        """A digit for each query."""
        return QUERIES[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Drawn without replacement from `MOST` of each symbol, so that no digit occurs more often."""
        symbols = DIGITS[: SYMBOLS[level]]
        text = "".join(rng.sample(symbols * MOST, LENGTHS[level]))
        asked = "".join(rng.sample(symbols, QUERIES[level]))
        answer = "".join(str(text.count(digit)) for digit in asked)
        return f"count {text}: {asked}", answer, {"text": text, "asked": asked}

    def solution(self, problem: Problem) -> str:
        """`1@2 1@4 1=2 5=0 2=0`: for each digit asked about, the positions where it occurs, then how many they are."""
        text, steps = problem.meta["text"], []
        for digit in problem.meta["asked"]:
            steps += [f"{digit}@{position}" for position, given in enumerate(text, 1) if given == digit]
            steps.append(f"{digit}={text.count(digit)}")
        return " ".join(steps)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """The occurrences and counts may come in any order; a step that is said again is not right."""
        missing, scores = Counter(self.solution(problem).split()), []
        for step in trace.split():
            scores.append(float(missing[step] > 0))
            missing[step] -= 1
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of counts right."""
        return position_credit(answer, problem.answer)
