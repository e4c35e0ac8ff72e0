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
    """Level l: `LENGTHS[l]` digits out of the first `SYMBOLS[l]`. Credit: share of positions right.

    At level 0 one of three symbols and the end mark are guessed: 1 in 16.
    """

    thought_alphabet: ClassVar[str] = DIGITS + ": "

    def length(self, level: int) -> int:
        """How many symbols are given."""
        return LENGTHS[level]

    def given_characters(self, level: int) -> str:
        """The symbols that the given string is drawn from."""
        return DIGITS[: SYMBOLS[level]]

    def legal_characters(self, level: int) -> str:
        """The level's symbols."""
        return self.given_characters(level)

    def answer_limit(self, level: int) -> int:
        """The level's length."""
        return self.length(level)

    def draw(self, rng: random.Random, level: int) -> str:
        """Uniform symbols."""
        characters = self.given_characters(level)
        return "".join(rng.choice(characters) for _ in range(self.length(level)))

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of positions right."""
        return position_credit(answer, problem.answer)


@dataclass(frozen=True)
class DigitStringTransform(DigitStringTask):
    """The given string is all there is to know: the answer is a function of it."""

    @abstractmethod
    def transform(self, text: str) -> str:
        """The answer, at most as long as `text`."""

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform symbols and what becomes of them."""
        text = self.draw(rng, level)
        return f"{self.name} {text}", self.transform(text), {"text": text}
