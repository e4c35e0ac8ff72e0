"""An elementary cellular automaton, n steps of a row of bits: `cellular_automaton 01101110 x2: 00100` -> `11100`.

The rule's eight bits are the new cells under the neighbourhoods 111, 110, .., 000, the rule's number in binary (Wolfram
1983; 01101110 is rule 110). Cells beyond both ends are always 0.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import Task, position_credit
from rlpt.types import Problem

WIDTHS = (1, 3, 4, 5, 6, 8, 9, 10, 12, 14)  # cells, by level
STEPS = (1, 1, 2, 2, 3, 3, 4, 5, 6, 8)  # by level


def evolve(rule: str, row: str, steps: int) -> list[str]:
    """The rows after each step."""
    new = {f"{7 - i:03b}": bit for i, bit in enumerate(rule)}
    rows = []
    for _ in range(steps):
        padded = f"0{row}0"
        row = "".join([new[padded[i : i + 3]] for i in range(len(row))])
        rows.append(row)
    return rows


@register("task", "cellular_automaton")
@dataclass(frozen=True)
class CellularAutomaton(Task):
    """Level l: `STEPS[l]` steps of `WIDTHS[l]` cells.

    Credit: the square of the share of cells right, since any row has about half of them right. At level 0 a bit and
    the end mark are guessed: 1 in 9.
    """

    name: ClassVar[str] = "cellular_automaton"
    alphabet: ClassVar[str] = "01"
    thought_alphabet: ClassVar[str] = "01 "

    def answer_limit(self, level: int) -> int:
        """A bit a cell."""
        return WIDTHS[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Rule uniform among all 256, row uniform."""
        rule, row = f"{rng.getrandbits(8):08b}", f"{rng.getrandbits(WIDTHS[level]):0{WIDTHS[level]}b}"
        rows = evolve(rule, row, STEPS[level])
        return f"cellular_automaton {rule} x{STEPS[level]}: {row}", rows[-1], {"rows": rows}

    def solution(self, problem: Problem) -> str:
        """`01100 11100`: the row after each step."""
        return " ".join(problem.meta["rows"])

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        return position_credit(answer, problem.answer) ** 2
