"""A stack program modulo 10; its stack at the end, bottom first: `stack_machine 3 4 add dup 2 mul` -> `74`.

A number is pushed; `add` and `mul` replace the two topmost by their sum and product, `dup` repeats the topmost, `swap`
exchanges the two topmost and `pop` drops the topmost.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

OPERATIONS = (3, 6, 8, 10, 12, 14, 17, 20, 23, 26)  # of the program, by level
FINAL_DEPTHS = (1, 2, 2, 3, 3, 4, 4, 5, 5, 6)  # of the stack at the end, by level
LARGEST = (1, 4, 9, 9, 9, 9, 9, 9, 9, 9)  # number pushed, by level
DEEPEST = 7
WIDENING, NARROWING, KEEPING = ("push", "push", "dup"), ("add", "mul", "pop"), ("swap",)  # pushes twice as frequent


def execute(operation: str, stack: str) -> str:
    """The stack (a digit an item, the topmost last) after one operation that finds the items it needs."""
    if operation.isdigit():
        return stack + operation
    if operation == "dup":
        return stack + stack[-1]
    if operation == "pop":
        return stack[:-1]
    below, second, top = stack[:-2], stack[-2], stack[-1]
    if operation == "swap":
        return below + top + second
    value = int(second) + int(top) if operation == "add" else int(second) * int(top)
    return below + str(value % 10)


def stacks(program: Sequence[str]) -> list[str]:
    """The stack after each operation of a program, from the empty one."""
    found, stack = [], ""
    for operation in program:
        stack = execute(operation, stack)
        found.append(stack)
    return found


@register("task", "stack_machine")
@dataclass(frozen=True)
class StackMachine(Task):
    """Level l: `OPERATIONS[l]` operations that leave `FINAL_DEPTHS[l]` items; numbers up to `LARGEST[l]` are pushed.

    Credit: share of items right, from the bottom. At level 0 two bits are joined into 0, 1 or 2, guessed with the end
    mark: 1 in 16.
    """

    name: ClassVar[str] = "stack_machine"

    def legal_characters(self, level: int) -> str:
        """All digits, at level 0 those that two bits can make."""
        return DIGITS if level else DIGITS[:3]

    def answer_limit(self, level: int) -> int:
        """A digit an item."""
        return FINAL_DEPTHS[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """At each step a change of depth that leaves the end within reach, then an operation of that change."""
        program: list[str] = []
        depth = 0
        for left in range(OPERATIONS[level] - 1, -1, -1):
            to_go = FINAL_DEPTHS[level] - depth
            fitting: list[str] = []
            if depth < DEEPEST and abs(to_go - 1) <= left:
                fitting += WIDENING if depth and level else WIDENING[:1]
            if depth > 1 and abs(to_go + 1) <= left:
                fitting += NARROWING
            if depth > 1 and abs(to_go) <= left and (program[-1] != "swap" or not fitting):
                fitting += KEEPING
            operation = rng.choice(fitting)
            depth += (operation in WIDENING) - (operation in NARROWING)
            program.append(str(rng.randint(0, LARGEST[level])) if operation == "push" else operation)
        return f"stack_machine {' '.join(program)}", stacks(program)[-1], {"program": program}

    def solution(self, problem: Problem) -> str:
        """`3 34 7 77 772 74`: the stack after each operation."""
        return " ".join(stacks(problem.meta["program"]))

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of items right, from the bottom."""
        return position_credit(answer, problem.answer)
