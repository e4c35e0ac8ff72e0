"""Reverse a string of digits: `reverse 3142` -> `2413`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.lists.digit_string import DigitStringTransform
from rlpt.types import Problem


@register("task", "reverse")
@dataclass(frozen=True)
class Reverse(DigitStringTransform):
    """The last digit first; levels and credit of `DigitStringTask`."""

    name: ClassVar[str] = "reverse"

    def transform(self, text: str) -> str:
        """From the last to the first."""
        return text[::-1]

    def solution(self, problem: Problem) -> str:
        """`4:2 3:4 2:1 1:3`: the symbols by position, from the last."""
        text = problem.meta["text"]
        return " ".join(f"{position}:{text[position - 1]}" for position in range(len(text), 0, -1))
