"""A stack machine modulo 10 with a character an operation: `34+` on the stack `12` leaves `127`.

The input is the stack at the start and the output the stack at the end, bottom first. A digit is pushed; `+` and `*`
replace the two topmost by their sum and product, `d` repeats the topmost, `s` exchanges the two topmost and `p` drops
the topmost of at least two.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, characters_of
from rlpt.tasks.programs.language import Limits, MicroLanguage
from rlpt.tasks.tracking.stack_machine import execute

OPERATIONS = {"+": "add", "*": "mul", "d": "dup", "s": "swap", "p": "pop"}
COMMANDS = DIGITS + "".join(OPERATIONS)
ARITY = {"+": 2, "*": 2, "d": 1, "s": 2, "p": 2}  # items that must be there
LONGEST = 64  # program that is run
_SIMPLE = "01234+*dsp"


@register("language", "stack")
@dataclass(frozen=True)
class StackLanguage(MicroLanguage):
    """Level 0: one of three operations on two bits; then longer programs on digits up to 4, then up to 9."""

    identity: ClassVar[tuple[str, str]] = ("0+", "3")
    levels: ClassVar[tuple[Limits, ...]] = (
        Limits(1, 2, 1, "+*p", "01"),
        Limits(2, 2, 3, _SIMPLE, "01234"),
        Limits(3, 2, 3, COMMANDS, DIGITS),
        Limits(4, 3, 4, COMMANDS, DIGITS),
        Limits(5, 3, 4, COMMANDS, DIGITS),
        Limits(7, 3, 5, COMMANDS, DIGITS),
        Limits(9, 4, 5, COMMANDS, DIGITS),
        Limits(12, 4, 6, COMMANDS, DIGITS),
        Limits(15, 4, 6, COMMANDS, DIGITS),
        Limits(18, 5, 8, COMMANDS, DIGITS),
    )

    def run(self, program: str, given: str) -> str | None:
        stacks = self._stacks(program, given)
        return stacks[-1] if stacks else None

    def trace(self, program: str, given: str) -> list[str]:
        """`3123 41234 +127`: each operation with the stack after it."""
        return [operation + stack for operation, stack in zip(program, self._stacks(program, given), strict=True)]

    def draft(self, rng: random.Random, level: int) -> str:
        """Operations that find what they need and keep the stack within the longest output, on a whole input."""
        limits = self.levels[level]
        depth, program = limits.given, ""
        while len(program) < limits.program:
            fitting = ["+", "*", "p"] if depth > 1 else []
            if level:
                fitting += ["s"] if depth > 1 and program[-1:] != "s" else []
                fitting += ["d", rng.choice(limits.values), rng.choice(limits.values)] if depth < limits.output else []
            operation = rng.choice(fitting)
            depth += 1 if operation in characters_of(DIGITS + "d") else -(operation in "+*p")
            program += operation
        return program

    def _stacks(self, program: str, given: str) -> list[str]:
        """After each operation; nothing where one lacks the items that it needs or the text is no program."""
        if len(program) > LONGEST or not characters_of(COMMANDS).issuperset(program):
            return []
        if not characters_of(DIGITS).issuperset(given):
            return []
        stacks, stack = [], given
        for operation in program:
            if len(stack) < ARITY.get(operation, 0):
                return []
            stack = execute(OPERATIONS.get(operation, operation), stack)
            stacks.append(stack)
        return stacks
