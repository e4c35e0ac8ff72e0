"""Brainf**k on digits: `,+.` gives `4` for `3`. A read stores a digit's number, a number 0..9 is printed as a digit."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, characters_of
from rlpt.tasks.esolangs import brainfuck
from rlpt.tasks.esolangs.output_prediction import exchange
from rlpt.tasks.programs.language import Limits, MicroLanguage

BOUNDS = brainfuck.Limits(steps=1000, tape=16, output=16)
PIECES = ("+", "+", "-", ",", ".", ">,", "[-]", "[->+<]>", "[->++<]>", "[-<+>]<", "<", ">")
_READ = {ord(digit): int(digit) for digit in DIGITS}
_SHOWN = {int(digit): digit for digit in DIGITS}


@register("language", "brainfuck")
@dataclass(frozen=True)
class BrainfuckLanguage(MicroLanguage):
    """Level 0: read, change or not, print; then longer programs that read and print more, from level 4 with loops."""

    identity: ClassVar[tuple[str, str]] = (",.", "3")
    levels: ClassVar[tuple[Limits, ...]] = (
        Limits(2, 1, 1, ",.", "01"),
        Limits(3, 1, 2, ",.+", "01234"),
        Limits(4, 2, 2, ",.+-", DIGITS),
        Limits(6, 2, 3, ",.+-<>", DIGITS),
        Limits(9, 2, 3, brainfuck.COMMANDS, DIGITS),
        Limits(11, 2, 4, brainfuck.COMMANDS, DIGITS),
        Limits(13, 3, 4, brainfuck.COMMANDS, DIGITS),
        Limits(16, 3, 5, brainfuck.COMMANDS, DIGITS),
        Limits(19, 3, 6, brainfuck.COMMANDS, DIGITS),
        Limits(23, 4, 6, brainfuck.COMMANDS, DIGITS),
    )

    def run(self, program: str, given: str) -> str | None:
        if not characters_of(DIGITS).issuperset(given):
            return None
        run = brainfuck.run(program, given.translate(_READ), BOUNDS)
        if run.ended != "end" or any(character > "\t" for character in run.output):
            return None
        return run.output.translate(_SHOWN)

    def trace(self, program: str, given: str) -> list[str]:
        """`,3 .4`: what is read and printed."""
        run = brainfuck.run(program, given.translate(_READ), BOUNDS)
        return exchange(run.reads, given, run.output.translate(_SHOWN))

    def draft(self, rng: random.Random, level: int) -> str:
        """A read, pieces that the level's commands can write, and a print."""
        limits = self.levels[level]
        known = characters_of(limits.commands)
        pieces = [piece for piece in PIECES if known.issuperset(piece)]
        program = ","
        while room := limits.program - 1 - len(program):
            program += rng.choice([piece for piece in pieces if len(piece) <= room])
        return program + "."
