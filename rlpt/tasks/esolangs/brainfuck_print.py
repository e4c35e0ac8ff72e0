"""Letters in Brainf**k. Write a program that prints them: `bf_print bd: ++++++++++[>++++++++++<-]>--` -> `.++.`;
tell which it prints: `bf_print_output ++++++++[>++++++++++++<-]>++.` -> `b`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_lowercase
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.esolangs.output_prediction import OutputPrediction
from rlpt.tasks.esolangs.program_writing import BrainfuckWriting, Draft

COUNTS = (1, 1, 1, 2, 2, 2, 2, 2, 3, 4)  # letters to print, by level; from level 5 on any
NEAR = (0, 1, 3, 3, 4)  # most between the number given and the first letter, and between letters, by level
PARTS_GIVEN = (0, 0, 0, 0, 0, 0, 3, 7, 7, 7)  # of the product's seven parts those to be written, by level
NEARNESS = 32  # a wrong character this far off is worth nothing, a near one almost half

OUTPUTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12)  # letters printed, by level
LETTERS = (3, 4, 6, 8, 10, 26, 26, 26, 26, 26)  # by level
FAR = 5  # most between two letters that are printed
FACTORS = (6, 7, 8, 9, 10, 11, 12)


def change(amount: int) -> str:
    """Commands that add `amount` to a cell."""
    return "+" * amount if amount >= 0 else "-" * -amount


def product(first: int, second: int) -> tuple[str, ...]:
    """Seven parts of a program that puts `first * second` into the second cell and goes there."""
    return "+" * first, "[", ">", "+" * second, "<", "-", "]>"


def near_letters(rng: random.Random, letters: str, count: int, far: int) -> str:
    """Letters of which each is at most `far` from the one before."""
    places = [rng.randrange(len(letters))]
    while len(places) < count:
        low, high = max(0, places[-1] - far), min(len(letters) - 1, places[-1] + far)
        places.append(rng.randint(low, high))
    return "".join(letters[place] for place in places)


@register("task", "bf_print")
@dataclass(frozen=True)
class BrainfuckPrint(BrainfuckWriting):
    """Level l: print `COUNTS[l]` letters; all 676 pairs by a whole program at level 7.

    Up to level 4 the cell already holds a number near the first letter, up to level 5 a round one. Characters that
    are off earn up to half the more the nearer they are. At level 0 only the print is missing: 1 in 16.
    """

    name: ClassVar[str] = "bf_print"
    lengths: ClassVar[tuple[int, ...]] = (1, 2, 4, 8, 12, 34, 52, 66, 92, 118)
    legal: ClassVar[tuple[str, ...]] = ("+-.",) * 6 + ("+-.<>[]",) * 4

    def draft(self, rng: random.Random, level: int) -> Draft:
        """Ten times 10, 11 or 12, then the difference to each letter."""
        exact = level < len(NEAR)
        text = near_letters(rng, ascii_lowercase, COUNTS[level], NEAR[level] if exact else len(ascii_lowercase))
        codes = [ord(letter) for letter in text]
        second = round(codes[0] / 10)
        parts = product(10, second)
        at = 10 * second
        if exact:  # the number that is given
            near = codes[0] - rng.choice((-1, 1)) * rng.randint(min(1, NEAR[level]), NEAR[level])
            parts = (*parts, change(near - at))
            at = near
        written = []
        for code in codes:
            written += [piece for piece in (change(code - at), ".") if piece]
            at = code
        return Draft(text, (*parts, *written), len(written) + PARTS_GIVEN[level], (("", text),))

    def output_credit(self, output: str, expected: str) -> float:
        """The whole for a right character, less than half for a near one."""
        credit = 0.0
        for given, wanted in zip(output, expected):
            away = abs(ord(given) - ord(wanted))
            credit += 1.0 if away == 0 else 0.5 * max(0.0, 1 - away / NEARNESS)
        return credit / max(len(output), len(expected))


@register("task", "bf_print_output")
@dataclass(frozen=True)
class BrainfuckPrintOutput(OutputPrediction):
    """Level l: `OUTPUTS[l]` of the first `LETTERS[l]` letters, at most 5 apart, from a product of two numbers.

    At level 0 one of three letters and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "bf_print_output"
    alphabet: ClassVar[str] = ascii_lowercase
    thought_alphabet: ClassVar[str] = ascii_lowercase + "0123456789*=+-: "
    lengths: ClassVar[tuple[int, ...]] = OUTPUTS
    legal: ClassVar[tuple[str, ...]] = tuple(ascii_lowercase[:count] for count in LETTERS)

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """A random first factor; the second brings the product near the first letter."""
        text = near_letters(rng, self.legal[level], OUTPUTS[level], FAR)
        first = rng.choice(FACTORS)
        second = round(ord(text[0]) / first)
        changes = differences(first * second, text)
        program = "".join(product(first, second)) + "".join(change(amount) + "." for amount in changes)
        return f"{self.name} {program}", text, {"factors": [first, second], "changes": changes}

    def steps(self, meta: Mapping[str, Any]) -> list[str]:
        """`8*12=96 +2=98:b -1=97:a`: the number in the cell at each print."""
        first, second = meta["factors"]
        at = first * second
        steps = [f"{first}*{second}={at}"]
        for amount in meta["changes"]:
            at += amount
            steps.append(f"{amount:+}={at}:{chr(at)}")
        return steps


def differences(at: int, text: Sequence[str]) -> list[int]:
    """From `at` to the first character's code, and from each to the next."""
    codes = [at, *map(ord, text)]
    return [after - before for before, after in pairwise(codes)]
