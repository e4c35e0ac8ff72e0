"""Sort digits in ascending order, repeats kept: `sort 3141` -> `1134`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.lists.digit_string import DigitStringTransform
from rlpt.types import Problem


@register("task", "sort")
@dataclass(frozen=True)
class Sort(DigitStringTransform):
    """The least digit first; levels and credit of `DigitStringTask`."""

    name: ClassVar[str] = "sort"

    def transform(self, text: str) -> str:
        """Ascending."""
        return "".join(sorted(text))

    def solution(self, problem: Problem) -> str:
        """`1:2 3:1 4:1`: each digit that occurs with its count, ascending."""
        return " ".join(f"{digit}:{problem.answer.count(digit)}" for digit in sorted(set(problem.answer)))
