"""What list tasks over one string of digits share: its length and symbols by level, and credit by position."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # by level
SYMBOLS = (3, 4, 6, 8, 8, 10, 10, 10, 10, 10)  # by level


@dataclass(frozen=True)
class DigitStringTask(Task):
    """Level l: `LENGTHS[l]` digits out of the first `SYMBOLS[l]` become as many. Credit: share of positions right.

    At level 0 one of three symbols and the end mark are guessed: 1 in 16.
    """

    thought_alphabet: ClassVar[str] = DIGITS + ": "

    @abstractmethod
    def transform(self, text: str) -> str:
        """The answer, as long as `text`."""

    def legal_characters(self, level: int) -> str:
        """The level's symbols."""
        return DIGITS[: SYMBOLS[level]]

    def answer_limit(self, level: int) -> int:
        """The level's length."""
        return LENGTHS[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform digits."""
        text = "".join(rng.choice(self.legal_characters(level)) for _ in range(LENGTHS[level]))
        return f"{self.name} {text}", self.transform(text), {"text": text}

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of positions right."""
        return position_credit(answer, problem.answer)
