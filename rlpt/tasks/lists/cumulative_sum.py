"""Running sums modulo 10: `cumulative_sum 3147` -> `3485`."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS
from rlpt.tasks.lists.digit_string import DigitStringTransform
from rlpt.types import Problem


@register("task", "cumulative_sum")
@dataclass(frozen=True)
class CumulativeSum(DigitStringTransform):
    """Digit i of the answer is the last digit of the sum of the first i; levels and credit of `DigitStringTask`."""

    name: ClassVar[str] = "cumulative_sum"
    thought_alphabet: ClassVar[str] = DIGITS + "+= "

    def legal_characters(self, level: int) -> str:
        """Digits up to the largest sum that the level can reach."""
        largest = (len(self.given_characters(level)) - 1) * self.length(level)
        return DIGITS[: largest + 1]

    def transform(self, text: str) -> str:
        """Last digits of the running sums."""
        return "".join(str(total % 10) for total in accumulate(map(int, text)))

    def solution(self, problem: Problem) -> str:
        """`0+3=3 3+1=4 4+4=8 8+7=15`: the last digit of a sum is the answer's, and the next sum begins with it."""
        text = problem.meta["text"]
        totals = map(int, "0" + problem.answer)
        return " ".join(f"{total}+{digit}={total + int(digit)}" for total, digit in zip(totals, text))
