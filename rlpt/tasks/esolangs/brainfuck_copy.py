"""Echo in Brainf**k. Write a program that does: `bf_copy abc=abc: ,[` -> `.,]`; tell what one prints:
`bf_copy_output ,,.,. abc` -> `bc`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.esolangs import brainfuck
from rlpt.tasks.esolangs.output_prediction import OutputPrediction, exchange
from rlpt.tasks.esolangs.program_writing import BrainfuckWriting, Draft

LENGTHS = (1, 1, 2, 4, 5, 5, 6, 7, 9, 11)  # symbols of the input that is shown, by level
MISSING = (1, 2, 4, 3, 4, 4, 5, 5, 5, 5)  # pieces to write, by level
LOOP_LEVEL = 3  # from here on inputs of any length
REPEATS = (1, 1, 1, 1, 1, 2, 2, 3, 3, 4)  # the most times that each symbol is printed, by level
STRIDES = (1, 1, 1, 1, 1, 1, 1, 1, 2, 3)  # of each so many symbols one is printed, at most, by level

OUTPUTS = (1, 2, 3, 4, 5)  # characters that programs without a loop print, by level
ATOMS = (1, 1, 2, 2, 3)  # of the loop's body, by level beyond those
ROUNDS = (5, 7, 5, 7, 7)  # of the loop, by the same levels
SYMBOLS = (3, 4, 6, 8, 10, 26, 26, 26, 26, 26)  # by level
BODY = (".", "..", ",.", ">,.<.", "+.-", "-.+")  # a symbol, twice, the next one, a pair turned round, its neighbours


@register("task", "bf_copy")
@dataclass(frozen=True)
class BrainfuckCopy(BrainfuckWriting):
    """Level l: print the `LENGTHS[l]` symbols read; from level 3 on any number, until a read gives 0.

    Later each symbol is to be printed several times (`x2`) or only every second or third one (`/2`). At level 0 one of
    three commands is missing, guessed with the end mark: 1 in 16.
    """

    name: ClassVar[str] = "bf_copy"
    lengths: ClassVar[tuple[int, ...]] = (1, 2, 4, 6, 6, 8, 10, 12, 14, 16)
    legal: ClassVar[tuple[str, ...]] = ("+,.",) * 3 + (",.[]",) * 3 + (brainfuck.COMMANDS,) * 4

    def draft(self, rng: random.Random, level: int) -> Draft:
        """Three inputs of letters."""
        length, repeats, stride = LENGTHS[level], rng.randint(1, REPEATS[level]), rng.randint(1, STRIDES[level])
        pieces = (",", "[", "." * repeats, "," * stride, "]") if level >= LOOP_LEVEL else (",", ".") * length
        cases = []
        for extra in (0, 1, 2) if level >= LOOP_LEVEL else (0, 0, 0):
            text = "".join(rng.choice(ascii_lowercase) for _ in range(length + extra))
            cases.append((text, "".join(symbol * repeats for symbol in text[::stride])))
        marks = f"x{repeats} " * (repeats > 1) + f"/{stride} " * (stride > 1)
        what = f"{marks}{cases[0][0]}={cases[0][1]}"
        return Draft(what, pieces, MISSING[level], tuple(cases))


@register("task", "bf_copy_output")
@dataclass(frozen=True)
class BrainfuckCopyOutput(OutputPrediction):
    """Level l: `OUTPUTS[l]` characters printed by reads and prints in a row; then loops with `ATOMS` pieces a round.

    At level 0 the first, second or third of three symbols is printed, guessed with the end mark: 1 in 16.
    """

    name: ClassVar[str] = "bf_copy_output"
    alphabet: ClassVar[str] = ascii_lowercase
    thought_alphabet: ClassVar[str] = ascii_lowercase + ",. "
    lengths: ClassVar[tuple[int, ...]] = (
        *OUTPUTS,
        *(2 * atoms * rounds for atoms, rounds in zip(ATOMS, ROUNDS)),
    )
    legal: ClassVar[tuple[str, ...]] = tuple(ascii_lowercase[:count] for count in SYMBOLS)

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """As many symbols as the program reads, so that no read meets the end before the loop is done."""
        symbols = self.legal[level]
        if level == 0:
            reads, program = 3, "," * rng.randint(1, 3) + "."
        elif level < len(OUTPUTS):
            program, left = "", OUTPUTS[level]
            while left:
                prints = rng.randint(1, min(2, left))
                program += "," * rng.randint(1, 2) + "." * prints
                left -= prints
            reads = program.count(",")
        else:
            body = "".join(rng.choice(BODY) for _ in range(ATOMS[level - len(OUTPUTS)]))
            program = f",[{body},]"
            reads = ROUNDS[level - len(OUTPUTS)] * (body.count(",") + 1)
            symbols = symbols[1:-1]  # whose neighbours are symbols too
        text = "".join(rng.choice(symbols) for _ in range(reads))
        answer = brainfuck.run(program, text).output
        return f"{self.name} {program} {text}", answer, {"program": program, "input": text}

    def steps(self, meta: Mapping[str, Any]) -> list[str]:
        """`,a ,b .b .b`: what is read and printed."""
        run = brainfuck.run(meta["program"], meta["input"])
        return exchange(run.reads, meta["input"], run.output)
