"""Sorting in Brainf**k, by counts of the numbers above each. Write a program that sorts: `bf_sort down 213=321: >,[...`
-> its end; tell what one prints: `bf_sort_output >,[... 3132` -> `1233`.

The programs read and print the numbers 1..9, not their characters; a read of 0 is the end. Each number v adds 1 to
counts 1..v. Going up, count v less count v + 1 is how often v is printed; going down, the number of counts above 0 is
printed and 1 taken from each of them, until none is left.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS
from rlpt.tasks.esolangs import brainfuck
from rlpt.tasks.esolangs.output_prediction import OutputPrediction, exchange
from rlpt.tasks.esolangs.program_writing import BrainfuckWriting, Draft

COUNT = (">", ",", "[", "[->+<", "[->>+<<]", ">>]", "<[<<]", ">,", "]")
UP = (">", "[", "<+>", ">>[-<+<->>]", "<[->+<]", "<[-<.>]", "<[->>+<<]", ">>>", "]")
DOWN = (">", "[", "[-<+", "[->>+<<]", ">>>]", "<.", "[-[-<<+>>]<<]", ">", "]")
PROGRAMS = {"up": COUNT + UP, "down": COUNT + DOWN}
LENGTHS = (2, 2, 3, 3, 4, 4, 5, 5, 6, 6)  # numbers in the input that is shown, by level
LARGEST = (3, 4, 4, 5, 5, 6, 7, 8, 9, 9)  # number, by level
MISSING = (1, 2, 3, 4, 5, 7, 9, 11, 14, 18)  # pieces to write, by level

OUTPUT_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)  # numbers read, by level
OUTPUT_LARGEST = (3, 4, 5, 6, 7, 8, 9, 9, 9, 9)  # by level
_TEXTS = {way: "".join(pieces) for way, pieces in PROGRAMS.items()}
VARIANTS = (  # the programs, and those that print each number once or twice; the first `VARIANT_COUNTS[l]` at level l
    _TEXTS["up"],
    _TEXTS["down"],
    _TEXTS["up"].replace("[-<.>]", "[[-]<.>]"),
    _TEXTS["up"].replace(".", ".."),
    _TEXTS["down"].replace(".", ".."),
)
VARIANT_COUNTS = (1, 2, 2, 3, 5, 5, 5, 5, 5, 5)
_READ = {ord(digit): int(digit) for digit in DIGITS}
_SHOWN = {**{int(digit): digit for digit in DIGITS}, **dict.fromkeys(map(ord, DIGITS), "?")}


@register("task", "bf_sort")
@dataclass(frozen=True)
class BrainfuckSort(BrainfuckWriting):
    """Level l: the last `MISSING[l]` pieces of a program that sorts upwards or downwards, at level 9 all of it.

    At level 0 the last bracket is missing; three commands and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "bf_sort"
    lengths: ClassVar[tuple[int, ...]] = (1, 4, 18, 24, 30, 52, 60, 64, 80, 100)
    legal: ClassVar[tuple[str, ...]] = ("]>.", "]><+") + ("]><+-[.",) * 5 + (brainfuck.COMMANDS,) * 3

    def encode(self, shown: str) -> str:
        """Digits to numbers."""
        return shown.translate(_READ)

    def decode(self, output: str) -> str:
        """Numbers to digits."""
        return output.translate(_SHOWN)

    def draft(self, rng: random.Random, level: int) -> Draft:
        """Three inputs, the hidden ones of one and of as many numbers as the one shown."""
        way = rng.choice(("up", "down"))
        cases = []
        for length in (LENGTHS[level], 1, LENGTHS[level]):
            numbers = "".join(rng.choice(DIGITS[1 : LARGEST[level] + 1]) for _ in range(length))
            cases.append((numbers, "".join(sorted(numbers, reverse=way == "down"))))
        what = f"{way} {cases[0][0]}={cases[0][1]}"
        return Draft(what, PROGRAMS[way], MISSING[level], tuple(cases))


@register("task", "bf_sort_output")
@dataclass(frozen=True)
class BrainfuckSortOutput(OutputPrediction):
    """Level l: `OUTPUT_LENGTHS[l]` numbers up to `OUTPUT_LARGEST[l]`, sorted up or down, later also each once or twice.

    At level 0 one of three numbers and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "bf_sort_output"
    alphabet: ClassVar[str] = DIGITS[1:]
    thought_alphabet: ClassVar[str] = DIGITS + ",. "
    lengths: ClassVar[tuple[int, ...]] = tuple(
        length * (2 if count > 3 else 1) for length, count in zip(OUTPUT_LENGTHS, VARIANT_COUNTS)
    )
    legal: ClassVar[tuple[str, ...]] = tuple(DIGITS[1 : largest + 1] for largest in OUTPUT_LARGEST)

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform numbers, run."""
        program = VARIANTS[rng.randrange(VARIANT_COUNTS[level])]
        numbers = "".join(rng.choice(self.legal[level]) for _ in range(OUTPUT_LENGTHS[level]))
        answer = brainfuck.run(program, numbers.translate(_READ)).output.translate(_SHOWN)
        return f"{self.name} {program} {numbers}", answer, {"program": program, "input": numbers}

    def steps(self, meta: Mapping[str, Any]) -> list[str]:
        """`,3 ,1 .1 .3`: what is read and printed."""
        run = brainfuck.run(meta["program"], meta["input"].translate(_READ))
        return exchange(run.reads, meta["input"], run.output.translate(_SHOWN))
