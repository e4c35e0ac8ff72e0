"""Parities of groups of bits: `parity 0110 101` -> `00`.

The smallest automaton that has to be run: every bit changes the answer, so nothing short of the whole group says
anything about it, and a transformer hardly learns it for long groups without steps (Hahn and Rofin 2402.09963).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from operator import xor
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import Task, position_credit
from rlpt.types import Problem

GROUPS = (1, 2, 2, 3, 3, 4, 5, 6, 7, 8)  # by level
SIZES = (1, 2, 3, 4, 6, 7, 8, 10, 12, 15)  # bits of a group, by level


@register("task", "parity")
@dataclass(frozen=True)
class Parity(Task):
    """Level l: `GROUPS[l]` groups of `SIZES[l]` bits, unless the options say otherwise.

    Credit: the square of the share of parities right, since any answer has about half of them right. At level 0 a bit
    and the end mark are guessed: 1 in 9.
    """

    name: ClassVar[str] = "parity"
    alphabet: ClassVar[str] = "01"
    thought_alphabet: ClassVar[str] = "01 "

    groups: int = 0  # at every level; 0: as many as the level's table says
    bits: int = 0  # of a group, at every level; 0: as many as the level's table says

    def __post_init__(self) -> None:
        for key in ("groups", "bits"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key}={getattr(self, key)}: must be 0 or more")

    def answer_limit(self, level: int) -> int:
        """A bit a group."""
        return self.groups or GROUPS[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform bits."""
        size = self.bits or SIZES[level]
        words = [f"{rng.getrandbits(size):0{size}b}" for _ in range(self.answer_limit(level))]
        return f"parity {' '.join(words)}", "".join([str(word.count("1") % 2) for word in words]), {"words": words}

    def solution(self, problem: Problem) -> str:
        """`0100 110` for 0110 101: a step a group, the parity up to each of its bits. Its last bit is the answer's."""
        return " ".join(["".join(map(str, accumulate(map(int, word), xor))) for word in problem.meta["words"]])

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        return position_credit(answer, problem.answer) ** 2
