"""Subtraction with borrows, also of a larger number from a smaller: `subtract 31-58` -> `-27`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.arithmetic.numeral import aligned_credit, random_number
from rlpt.tasks.base import DIGITS, Task
from rlpt.types import Problem

# Digits of the two terms by level, in either order. Level 0 has differences of 0..SMALL_DIFFERENCE.
DIGIT_COUNTS = ((1, 1), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 4), (5, 5), (7, 7), (10, 10))
SMALL_DIFFERENCE = 2


@register("task", "subtraction")
@dataclass(frozen=True)
class Subtraction(Task):
    """Level l: `DIGIT_COUNTS[l]` digits a term. Credit: share of characters right, aligned at the least significant.

    At level 0 the answer is one of three digits, guessed with the end mark: 1 in 16. The first levels have few
    different problems (27 at level 0, 100 at level 1).
    """

    name: ClassVar[str] = "subtraction"
    alphabet: ClassVar[str] = DIGITS + "-"
    thought_alphabet: ClassVar[str] = DIGITS + "-=<> "

    def legal_characters(self, level: int) -> str:
        """Digits and the sign, at level 0 the small differences."""
        return self.alphabet if level else DIGITS[: SMALL_DIFFERENCE + 1]

    def answer_limit(self, level: int) -> int:
        """Digits of the longer term and a sign."""
        return max(DIGIT_COUNTS[level]) + 1 if level else 1

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Terms uniform among the numbers of their length, swapped half of the time."""
        if level == 0:
            difference = rng.randrange(SMALL_DIFFERENCE + 1)
            second = rng.randrange(10 - difference)
            first = second + difference
        else:
            first, second = (random_number(rng, count) for count in DIGIT_COUNTS[level])
            if rng.random() < 0.5:
                first, second = second, first
        return f"subtract {first}-{second}", str(first - second), {"first": first, "second": second}

    def solution(self, problem: Problem) -> str:
        """`31<58 8-1-0=7 5-3-0=2`: which is larger, then the columns of larger minus smaller from the right, each
        `digit-digit-borrow=difference`; a digit that borrows is written with its ten: `52>37 12-7-0=5 5-3-1=1`."""
        first, second = problem.meta["first"], problem.meta["second"]
        relation = "<" if first < second else ">" if first > second else "="
        larger, smaller = str(max(first, second))[::-1], str(min(first, second))[::-1]
        steps, borrow = [f"{first}{relation}{second}"], 0
        for a, b in zip(map(int, larger), map(int, smaller.ljust(len(larger), "0"))):
            ten = 10 if a < b + borrow else 0
            steps.append(f"{a + ten}-{b}-{borrow}={a + ten - b - borrow}")
            borrow = ten // 10
        return " ".join(steps)

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of characters right, aligned at the least significant digit."""
        return aligned_credit(answer, problem.answer)
