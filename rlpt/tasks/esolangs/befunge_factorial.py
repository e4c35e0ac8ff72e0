"""Factorials in Befunge-93. Write a program that reads n and prints (e n! + d) c:
`befunge_factorial (1n!+3)2 n=4 54: 1&v@.*2+3$<;1->...` -> its end; tell what one prints:
`befunge_factorial_output 1&v@.*2+3$<;1->... n=4` -> `54`.

The second row goes round as a loop: n is on top of the product, which it multiplies; it is put away at (0, 0)
meanwhile. Where it is 0 the run leaves upwards and ends on the first row, going left.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import factorial
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS
from rlpt.tasks.esolangs import befunge
from rlpt.tasks.esolangs.output_prediction import OutputPrediction
from rlpt.tasks.esolangs.program_writing import BEFUNGE_COMMANDS, BefungeWriting, Draft

SHOWN = (2, 3, 3, 4, 4, 5, 5, 6, 6, 7)  # n of the case that is shown, by level
MOST = 8  # n of a hidden case
LARGEST = (3, 3, 3, 5, 5, 9, 9, 9, 9, 9)  # c and e, by level; d is any digit
MISSING = (1, 2, 3, 4, 6, 8, 10, 13, 16, 20)  # pieces to write, by level

OUTPUT_RANGES = ((0, 3), (1, 4), (2, 5), (3, 6), (4, 7), (5, 8), (6, 9), (7, 10), (8, 11), (9, 11))  # of n, by level
OUTPUT_LARGEST = (3, 3, 9, 9, 9, 9, 9, 9, 6, 6)  # c and e, by level: what stays within 32 bits
FIRST_VALUES = (2, 4, 6)  # all that is printed at level 0


def program_pieces(start: int, added: int, factor: int) -> tuple[str, ...]:
    """The program for `(start n! + added) factor`, in pieces."""
    first_row = (str(start), "&", "v", "@", ".", "*", str(factor), "+", str(added), "$", "<", befunge.ROW_END)
    return (*first_row, "1-", ">", ":00p", ":!", "#^_", "*", "00", "g")


def value(start: int, added: int, factor: int, n: int) -> int:
    """What it prints."""
    return (start * factorial(n) + added) * factor


def numbers(rng: random.Random, largest: int) -> tuple[int, int, int]:
    """(e, d, c)."""
    return rng.randint(1, largest), rng.randint(0, 9), rng.randint(1, largest)


FIRST_NUMBERS = tuple(  # (e, d, c, n) that level 0 of the predictions draws from
    (start, added, factor, n)
    for start, added, factor, n in product(range(1, 4), range(10), range(1, 4), range(4))
    if value(start, added, factor, n) in FIRST_VALUES
)


@register("task", "befunge_factorial")
@dataclass(frozen=True)
class BefungeFactorial(BefungeWriting):
    """Level l: the last `MISSING[l]` pieces of the program, at level 9 all of it.

    At level 0 its last instruction is missing; three and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "befunge_factorial"
    lengths: ClassVar[tuple[int, ...]] = (1, 3, 5, 8, 16, 20, 22, 26, 32, 40)
    legal: ClassVar[tuple[str, ...]] = ("gp*", "01gp*", *("01gp*#^_",) * 2, *(BEFUNGE_COMMANDS,) * 6)

    def draft(self, rng: random.Random, level: int) -> Draft:
        """Three different n."""
        start, added, factor = numbers(rng, LARGEST[level])
        shown = SHOWN[level]
        hidden = rng.sample([n for n in range(MOST + 1) if n != shown], 2)
        cases = tuple((str(n), str(value(start, added, factor, n))) for n in (shown, *hidden))
        what = f"({start}n!+{added}){factor} n={shown} {cases[0][1]}"
        return Draft(what, program_pieces(start, added, factor), MISSING[level], cases)


@register("task", "befunge_factorial_output")
@dataclass(frozen=True)
class BefungeFactorialOutput(OutputPrediction):
    """Level l: n within `OUTPUT_RANGES[l]`, c and e up to `OUTPUT_LARGEST[l]`.

    At level 0 one of 2, 4 and 6 is guessed with the end mark: 1 in 16.
    """

    name: ClassVar[str] = "befunge_factorial_output"
    thought_alphabet: ClassVar[str] = DIGITS + "+*= "
    lengths: ClassVar[tuple[int, ...]] = (
        1,
        *(len(str(value(most, 9, most, n))) for most, (_, n) in zip(OUTPUT_LARGEST[1:], OUTPUT_RANGES[1:])),
    )
    legal: ClassVar[tuple[str, ...]] = ("".join(map(str, FIRST_VALUES)), *(DIGITS,) * 9)

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform numbers."""
        start, added, factor, n = (
            (*numbers(rng, OUTPUT_LARGEST[level]), rng.randint(*OUTPUT_RANGES[level]))
            if level
            else rng.choice(FIRST_NUMBERS)
        )
        program = "".join(program_pieces(start, added, factor))
        answer = befunge.run(program, str(n)).output.rstrip(" ")
        return f"{self.name} {program} n={n}", answer, {"start": start, "added": added, "factor": factor, "n": n}

    def steps(self, meta: Mapping[str, Any]) -> list[str]:
        """`1*3=3 3*2=6 6*1=6 6+3=9 9*2=18`: the product from n down to 1, the sum and the last factor."""
        number, steps = meta["start"], []
        for n in range(meta["n"], 0, -1):
            steps.append(f"{number}*{n}={number * n}")
            number *= n
        total = number + meta["added"]
        return [*steps, f"{number}+{meta['added']}={total}", f"{total}*{meta['factor']}={total * meta['factor']}"]
