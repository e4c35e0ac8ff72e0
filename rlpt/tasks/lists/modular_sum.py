"""Sums of groups of digits modulo m: `modular_sum 7: 314 25 96` -> `101`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

GROUPS = (1, 2, 2, 2, 3, 3, 4, 4, 5, 5)  # by level
SIZES = (2, 2, 3, 4, 4, 5, 5, 6, 6, 8)  # digits of a group, by level
MODULI = ((3, 3), (3, 4), (3, 5), (3, 7), (4, 9), (5, 10), (6, 10), (7, 10), (7, 10), (7, 10))  # least, most, by level


@register("task", "modular_sum")
@dataclass(frozen=True)
class ModularSum(Task):
    """Level l: `GROUPS[l]` groups of `SIZES[l]` digits, modulo a number in `MODULI[l]`. Credit: share of sums right.

    At level 0 the sum of one group modulo 3 and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "modular_sum"
    thought_alphabet: ClassVar[str] = DIGITS + "+= "

    def legal_characters(self, level: int) -> str:
        """Residues of the largest modulus."""
        return DIGITS[: MODULI[level][1]]

    def answer_limit(self, level: int) -> int:
        """A residue for each group."""
        return GROUPS[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform digits, the modulus uniform in its range."""
        modulus = rng.randint(*MODULI[level])
        groups = ["".join(rng.choices(DIGITS, k=SIZES[level])) for _ in range(GROUPS[level])]
        answer = "".join(str(sum(map(int, group)) % modulus) for group in groups)
        return f"modular_sum {modulus}: {' '.join(groups)}", answer, {"groups": groups, "modulus": modulus}

    def solution(self, problem: Problem) -> str:
        """`0+3=3 3+1=4 4+4=1` for 314 modulo 7: the residue so far and a digit make the next residue; each group begins
        with 0, and its answer is its last residue."""
        modulus, steps = problem.meta["modulus"], []
        for group in problem.meta["groups"]:
            total = 0
            for digit in map(int, group):
                steps.append(f"{total}+{digit}={(total + digit) % modulus}")
                total = (total + digit) % modulus
        return " ".join(steps)

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of sums right."""
        return position_credit(answer, problem.answer)
