"""Reverse a string of digits: `reverse 3142` -> `2413`."""

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


@register("task", "reverse")
@dataclass(frozen=True)
class Reverse(Task):
    """Level l: `LENGTHS[l]` digits out of the first `SYMBOLS[l]`. Credit: share of positions right.

    At level 0 one of three symbols and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "reverse"
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
        return f"reverse {text}", text[::-1], {"text": text}

    def solution(self, problem: Problem) -> str:
        """`4:2 3:4 2:1 1:3`: the symbols by position, from the last."""
        text = problem.meta["text"]
        return " ".join(f"{position}:{text[position - 1]}" for position in range(len(text), 0, -1))

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of positions right."""
        return position_credit(answer, problem.answer)
