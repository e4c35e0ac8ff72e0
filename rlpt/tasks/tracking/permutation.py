"""Permutations applied one after the other to a row of symbols: `permutation cab: 213 321 ?13` -> `bc`.

The word problem of the symmetric group; from five symbols on it is complete for NC1 (Barrington 1989), beyond what a
network of fixed depth can do for any number of permutations at once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

LETTERS = "abcdefgh"
SYMBOLS = (3, 3, 4, 4, 5, 5, 5, 6, 7, 8)  # of the row, by level
PERMUTATIONS = (1, 2, 2, 3, 3, 4, 5, 6, 7, 8)  # by level
ASKED = (1, 2, 3, 4, 5, 5, 5, 6, 7, 8)  # positions, by level


def apply(permutation: str, row: str) -> str:
    """The row whose place i holds what was in place `permutation[i]` (one digit, from 1)."""
    return "".join([row[int(place) - 1] for place in permutation])


def shuffled(text: str, rng: random.Random) -> str:
    """The characters in a uniformly random order."""
    return "".join(sorted(text, key=lambda _: rng.random()))


@register("task", "permutation")
@dataclass(frozen=True)
class Permutation(Task):
    """Level l: `PERMUTATIONS[l]` permutations of `SYMBOLS[l]` letters; what is in `ASKED[l]` places at the end.

    `213` puts what is in place 2 first, then what is in place 1. Credit: share of asked places right. At level 0 one of
    three letters and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "permutation"
    alphabet: ClassVar[str] = LETTERS
    thought_alphabet: ClassVar[str] = LETTERS + " "

    def legal_characters(self, level: int) -> str:
        """The level's letters."""
        return LETTERS[: SYMBOLS[level]]

    def answer_limit(self, level: int) -> int:
        """A letter a place asked for."""
        return ASKED[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Row, permutations and asked places uniform; the places ascending."""
        start, places = shuffled(self.legal_characters(level), rng), DIGITS[1 : SYMBOLS[level] + 1]
        permutations = [shuffled(places, rng) for _ in range(PERMUTATIONS[level])]
        asked = "".join(sorted(shuffled(places, rng)[: ASKED[level]]))
        rows = [start]
        for permutation in permutations:
            rows.append(apply(permutation, rows[-1]))
        prompt = f"permutation {start}: {' '.join(permutations)} ?{asked}"
        return prompt, apply(asked, rows[-1]), {"rows": rows}

    def solution(self, problem: Problem) -> str:
        """`acb bca`: the row after each permutation."""
        return " ".join(problem.meta["rows"][1:])

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of asked places right."""
        return position_credit(answer, problem.answer)
