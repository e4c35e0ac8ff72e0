"""Addition with carries: `add 58+67` -> `125` (or `521`, least significant digit first)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.arithmetic.numeral import aligned_credit, random_number
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

# Digits of the two terms by level. Level 0 has terms whose sum is at most SMALL_SUM.
DIGIT_COUNTS = ((1, 1), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 4), (5, 5), (7, 7), (10, 10))
SMALL_SUM = 2


@register("task", "addition")
@dataclass(frozen=True)
class Addition(Task):
    """Level l: `DIGIT_COUNTS[l]` digits a term. Credit: share of digits right, aligned at the least significant one.

    At level 0 the answer is one of three digits, guessed with the end mark: 1 in 16. The first levels have few
    different problems (6 at level 0, 100 at level 1), so held-out seeds repeat problems of training there.
    """

    name: ClassVar[str] = "addition"
    thought_alphabet: ClassVar[str] = DIGITS + "+= "

    reversed_answer: bool = False  # answers are written from the least significant digit

    def legal_characters(self, level: int) -> str:
        """All digits, at level 0 those of its sums."""
        return DIGITS if level else DIGITS[: SMALL_SUM + 1]

    def answer_limit(self, level: int) -> int:
        """Digits of the largest sum."""
        return max(DIGIT_COUNTS[level]) + 1 if level else 1

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Terms uniform among the numbers of their length."""
        if level == 0:
            first = rng.randrange(SMALL_SUM + 1)
            second = rng.randrange(SMALL_SUM + 1 - first)
        else:
            first, second = (random_number(rng, count) for count in DIGIT_COUNTS[level])
        answer = str(first + second)
        prompt = f"add {first}+{second}"
        return prompt, answer[::-1] if self.reversed_answer else answer, {"first": first, "second": second}

    def solution(self, problem: Problem) -> str:
        """`8+7+0=15 5+6+1=12`: column sums from the right, each `digit+digit+carry=sum`."""
        first, second = str(problem.meta["first"])[::-1], str(problem.meta["second"])[::-1]
        steps, carry = [], 0
        for position in range(max(len(first), len(second))):
            a, b = (int(term[position : position + 1] or "0") for term in (first, second))
            steps.append(f"{a}+{b}+{carry}={a + b + carry}")
            carry = (a + b + carry) // 10
        return " ".join(steps)

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of digits right, aligned at the least significant one."""
        if self.reversed_answer:
            return position_credit(answer, problem.answer)
        return aligned_credit(answer, problem.answer)
