"""Fibonacci numbers in Befunge-93, from any two terms. Write a program that reads n and prints n of them:
`befunge_fibonacci 1 1 n=5 1 1 2 3 5: 11&v;00g>...` -> its end; tell what one prints:
`befunge_fibonacci_output 11&v;00g>... n=5` -> `1 1 2 3 5`.

The second row goes round as a loop: n is on top, over the next two terms; it is put away at (0, 0) while the first of
them is printed and their sum, made with a copy kept at (1, 0), takes its place.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS
from rlpt.tasks.esolangs import befunge
from rlpt.tasks.esolangs.output_prediction import OutputPrediction
from rlpt.tasks.esolangs.program_writing import BEFUNGE_COMMANDS, BefungeWriting, Draft

COUNTS = (2, 2, 3, 3, 4, 4, 5, 5, 6, 7)  # terms of the case that is shown, by level
MOST = 6  # terms that a hidden case asks for
LARGEST = (2, 3, 4, 9, 9, 9, 9, 9, 9, 9)  # first and second term, by level
MISSING = (1, 2, 3, 4, 6, 8, 10, 12, 15, 18)  # pieces to write, by level
EXTRA_LEVEL = 6  # from here on a digit is added to each sum

OUTPUT_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)  # terms printed, by level; from level 4 on one less now and then
OUTPUT_LARGEST = (3, 4, 6, 9, 9, 9, 9, 9, 9, 9)  # first and second term, by level
OUTPUT_EXTRA_LEVEL = 2  # from here on a digit is added to each sum


def terms(first: int, second: int, count: int, extra: int = 0) -> list[int]:
    """`count` terms from the first two, each of the others the sum of the two before it and `extra`."""
    found = [first, second]
    while len(found) < count:
        found.append(found[-2] + found[-1] + extra)
    return found[:count]


def program_pieces(first: int, second: int, extra: int = 0) -> tuple[str, ...]:
    """The program in pieces; nothing is added where `extra` is 0."""
    added = f"{extra}+" if extra else ""
    start = (str(second), str(first), "&", "v", befunge.ROW_END, "00g", ">", ":!", "#@", "_")
    return (*start, "1-", "00p", ":.", "\\:", "10p", f"+{added}", "10", "g")


@register("task", "befunge_fibonacci")
@dataclass(frozen=True)
class BefungeFibonacci(BefungeWriting):
    """Level l: the last `MISSING[l]` pieces of the program, at level 9 all of it; terms up to `LARGEST[l]`.

    From level 6 on a digit is added to each sum: `befunge_fibonacci 1 1 +4 n=3 1 1 6`.
    At level 0 its last instruction is missing; three and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "befunge_fibonacci"
    lengths: ClassVar[tuple[int, ...]] = (1, 3, 4, 8, 12, 18, 24, 28, 36, 40)
    legal: ClassVar[tuple[str, ...]] = ("gp+", "01gp+", *("01gp+:\\.-",) * 3, *(BEFUNGE_COMMANDS,) * 5)

    def draft(self, rng: random.Random, level: int) -> Draft:
        """Three different counts of terms."""
        first, second = (rng.randint(1, LARGEST[level]) for _ in range(2))
        extra = rng.randint(0, 9) if level >= EXTRA_LEVEL else 0
        shown = COUNTS[level]
        hidden = rng.sample([count for count in range(1, MOST + 1) if count != shown], 2)
        cases = tuple(
            (str(count), " ".join(map(str, terms(first, second, count, extra)))) for count in (shown, *hidden)
        )
        what = f"{first} {second} " + f"+{extra} " * (extra > 0) + f"n={shown} {cases[0][1]}"
        return Draft(what, program_pieces(first, second, extra), MISSING[level], cases)


@register("task", "befunge_fibonacci_output")
@dataclass(frozen=True)
class BefungeFibonacciOutput(OutputPrediction):
    """Level l: `OUTPUT_COUNTS[l]` terms; from level 2 on a digit is added to each sum.

    At level 0 the first term is printed, one of three numbers, guessed with the end mark: 1 in 16.
    """

    name: ClassVar[str] = "befunge_fibonacci_output"
    alphabet: ClassVar[str] = DIGITS + " "
    thought_alphabet: ClassVar[str] = DIGITS + "+= "
    lengths: ClassVar[tuple[int, ...]] = tuple(
        len(" ".join(map(str, terms(largest, largest, count, 9))))
        for largest, count in zip(OUTPUT_LARGEST, OUTPUT_COUNTS)
    )
    legal: ClassVar[tuple[str, ...]] = ("123", "1234 ", *(DIGITS + " ",) * 8)

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform terms and additions."""
        first, second = (rng.randint(1, OUTPUT_LARGEST[level]) for _ in range(2))
        extra = rng.randint(0, 9) if level >= OUTPUT_EXTRA_LEVEL else 0
        count = OUTPUT_COUNTS[level] - (rng.random() < 0.25 if level >= 4 else 0)
        program = "".join(program_pieces(first, second, extra))
        answer = befunge.run(program, str(count)).output.rstrip(" ")
        return f"{self.name} {program} n={count}", answer, {"terms": terms(first, second, count, extra), "extra": extra}

    def steps(self, meta: Mapping[str, Any]) -> list[str]:
        """`1 2 1+2+4=7`: the first two terms, then the sums."""
        found, extra = meta["terms"], meta["extra"]
        added = f"+{extra}" if extra else ""
        sums = [f"{a}+{b}{added}={c}" for a, b, c in zip(found, found[1:], found[2:])]
        return [*map(str, found[:2]), *sums]
