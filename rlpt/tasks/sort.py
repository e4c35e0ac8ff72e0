"""Sort digits in ascending order, repeats kept: `sort 3141` -> `1134`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # by level
SYMBOLS = (3, 4, 6, 8, 8, 10, 10, 10, 10, 10)  # by level


@register("task", "sort")
@dataclass(frozen=True)
class Sort(Task):
    """Level l: `LENGTHS[l]` digits out of the first `SYMBOLS[l]`. Credit: share of positions right.

    At level 0 one of three symbols and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "sort"
    thought_alphabet: ClassVar[str] = DIGITS + ": "

    def legal_characters(self, level: int) -> str:
        """The level's symbols."""
        return DIGITS[: SYMBOLS[level]]

    def answer_limit(self, level: int) -> int:
        """The level's length."""
        return LENGTHS[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform digits."""
        text = "".join(rng.choice(self.legal_characters(level)) for _ in range(LENGTHS[level]))
        return f"sort {text}", "".join(sorted(text)), {"text": text}

    def solution(self, problem: Problem) -> str:
        """`1:2 3:1 4:1`: each digit that occurs with its count, ascending."""
        return " ".join(f"{digit}:{problem.answer.count(digit)}" for digit in sorted(set(problem.answer)))

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of positions right."""
        return position_credit(answer, problem.answer)
