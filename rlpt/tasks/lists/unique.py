"""Drop repeats, first occurrences stay in order: `unique 31413` -> `314`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS
from rlpt.tasks.lists.digit_string import DigitStringTransform
from rlpt.types import Problem


@register("task", "unique")
@dataclass(frozen=True)
class Unique(DigitStringTransform):
    """Each digit where it occurs first; levels and credit of `DigitStringTask`."""

    name: ClassVar[str] = "unique"
    thought_alphabet: ClassVar[str] = DIGITS + "+- "

    def answer_limit(self, level: int) -> int:
        """As many as are given, and as differ."""
        return min(self.length(level), len(self.given_characters(level)))

    def transform(self, text: str) -> str:
        """First occurrences."""
        return "".join(dict.fromkeys(text))

    def solution(self, problem: Problem) -> str:
        """`3+ 1+ 4+ 1- 3-`: each digit in turn, `+` where it is new."""
        text = problem.meta["text"]
        return " ".join(f"{digit}{'-' if digit in text[:at] else '+'}" for at, digit in enumerate(text))
