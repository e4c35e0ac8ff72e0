"""An interpreter of Brainf**k that touches nothing outside itself and always ends.

Cells hold 0..255 and wrap, the pointer starts at the left end of a short tape, a read at the end of the input stores 0.
A program is read once into runs of commands with jump targets. Innermost loops that move nothing on balance (`[-]`,
`[->++<]`) or that only look for a zero (`[>]`) are done at one blow where no edge of the tape is met.

Steps count single commands, as if each were executed by itself; their limit is looked at after every `]`, so a piece
without loops always runs to its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Any

COMMANDS = "+-<>[].,"
ADD, OPEN, CLOSE, WRITE, READ, MULTIPLY, SCAN, STOP = range(8)
# A loop that is so many rounds long: cell / divisor * inverse mod modulus (endless where the divisor does not divide
# the cell). Then: the leftmost and rightmost cells visited, commands a round, what a round adds to which other cell.
Product = tuple[int, int, int, int, int, int, tuple[tuple[int, int], ...]]
# (what, move made before it, amount or jump target, for a loop done at one blow what it does)
Operation = tuple[int, int, int, Any]
_RUNS = re.compile(r"\++|-+|>+|<+|[\[\].,]")


@dataclass(frozen=True)
class Limits:
    """What a run may use."""

    steps: int = 10_000
    tape: int = 64  # cells
    output: int = 64  # characters


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Run:
    """What a run did."""

    output: str  # characters 0..255
    steps: int  # commands executed, that at which it ended included; the limit where that ended it
    ended: str  # end | steps | tape (pointer off the tape) | output (too much) | syntax (not a program)
    cell: int  # at the pointer, when it ended
    reads: tuple[int, ...]  # for each character of the output, how many reads went before it


@dataclass(frozen=True, slots=True)
class Program:
    """A program read by `parse`."""

    code: tuple[Operation, ...]
    costs: tuple[int, ...]  # commands from the last bracket up to and including each operation


@lru_cache(maxsize=1024)
def parse(text: str) -> Program | None:
    """The program; None where brackets do not match or a character is no command."""
    code: list[Operation] = []
    costs: list[int] = []
    open_at: list[int] = []
    cost = matched = move = 0
    innermost = False  # whether no loop ended since the last one began
    for run in _RUNS.findall(text):
        kind, length = run[0], len(run)
        matched += length
        if kind in "<>":
            if move:
                code.append((ADD, move, 0, None))
                costs.append(cost)
            cost += length
            move = length if kind == ">" else -length
            continue
        cost += length
        if kind in "+-":
            code.append((ADD, move, length if kind == "+" else -length, None))
        elif kind == "]":
            if not open_at:
                return None
            _close(code, costs, open_at.pop(), move, cost, innermost)
            cost = move = 0
            innermost = False
            continue
        elif kind == "[":
            open_at.append(len(code))
            innermost = True
            code.append((OPEN, move, 0, None))
        else:
            code.append((WRITE if kind == "." else READ, move, 0, None))
        costs.append(cost)
        move = 0
        if kind == "[":
            cost = 0
    if open_at or matched != len(text):
        return None
    return Program((*code, (STOP, move, 0, None)), (*costs, cost))


def _close(code: list[Operation], costs: list[int], start: int, move: int, cost: int, innermost: bool) -> None:
    """Ends the loop that began at `start`, with what does it at one blow put before it where there is such a thing."""
    body = code[start + 1 :] if innermost else []
    shortcut = SCAN if innermost and not body and move else None
    product = None
    if innermost and all(operation[0] == ADD for operation in body):
        product = _product(body, move, cost)
        shortcut = MULTIPLY if product else shortcut
    if shortcut is not None:
        code.insert(start, (shortcut, code[start][1], start + len(body) + 3, product or move))
        costs[start : start + 1] = [costs[start] - 1, 1]
        start += 1
        code[start] = (OPEN, 0, 0, None)
    code[start] = (OPEN, code[start][1], len(code) + 1, None)
    code.append((CLOSE, move, start + 1, None))
    costs.append(cost)


def _product(body: list[Operation], move: int, cost: int) -> Product | None:
    """What a loop does whose rounds leave the pointer where it was; None for others."""
    at = low = high = 0
    sums: dict[int, int] = {0: 0}
    for _, step, add, _ in body:
        at += step
        low, high = min(low, at), max(high, at)
        sums[at] = sums.get(at, 0) + add
    if at + move != 0:
        return None
    down = -sums.pop(0) % 256
    divisor = gcd(down, 256)
    modulus = 256 // divisor
    inverse = pow(down // divisor, -1, modulus) if modulus > 1 else 0
    return divisor, inverse, modulus, low, high, cost, tuple(sums.items())


def execute(program: Program, text: str = "", limits: Limits = LIMITS) -> Run:
    """Runs a program on the characters of `text` (those above 255 read as `?`)."""
    code, costs = program.code, program.costs
    size, most_steps, most_output = limits.tape, limits.steps, limits.output
    data, tape, output = text.encode("latin-1", "replace"), bytearray(size), bytearray()
    reads: list[int] = []
    at = pointer = read = steps = 0
    ended = "end"
    while True:
        operation, move, first, second = code[at]
        if move:
            pointer += move
            if not 0 <= pointer < size:
                beyond = (-pointer if pointer < 0 else pointer - size + 1) - 1  # moves that were not made
                steps += costs[at] - beyond - (abs(first) if operation == ADD else operation <= READ)
                ended = "tape"
                break
        if operation == ADD:
            tape[pointer] = (tape[pointer] + first) & 255
        elif operation == CLOSE:
            steps += costs[at]
            if steps > most_steps:
                ended = "steps"
                break
            if tape[pointer]:
                at = first
                continue
        elif operation == MULTIPLY:
            steps += costs[at]
            value = tape[pointer]
            if value == 0:
                steps += 1
                at = first
                continue
            divisor, inverse, modulus, low, high, cost, targets = second
            if pointer + low >= 0 and pointer + high < size:
                count = value // divisor * inverse % modulus
                steps = most_steps + 1 if value % divisor else steps + 1 + count * cost
                if steps > most_steps:
                    ended = "steps"
                    break
                for offset, factor in targets:
                    tape[pointer + offset] = (tape[pointer + offset] + count * factor) & 255
                tape[pointer] = 0
                at = first
                continue
        elif operation == OPEN:
            steps += costs[at]
            if not tape[pointer]:
                at = first
                continue
        elif operation == WRITE:
            if len(output) == most_output:
                steps += costs[at]
                ended = "output"
                break
            output.append(tape[pointer])
            reads.append(read)
        elif operation == READ:
            tape[pointer] = data[read] if read < len(data) else 0
            read += 1
        elif operation == SCAN:
            steps += costs[at]
            found = pointer
            while 0 <= found < size and tape[found]:
                found += second
            if 0 <= found < size:
                steps += 1 + (found - pointer) // second * (abs(second) + 1)
                if steps > most_steps and found != pointer:
                    ended = "steps"
                    break
                pointer = found
                at = first
                continue
        else:
            steps += costs[at]
            break
        at += 1
    cell = tape[pointer] if 0 <= pointer < size else 0
    return Run(output.decode("latin-1"), min(steps, most_steps), ended, cell, tuple(reads))


def run(text: str, given: str = "", limits: Limits = LIMITS) -> Run:
    """Parses and executes; `syntax` where the text is no program."""
    program = parse(text)
    return Run("", 0, "syntax", 0, ()) if program is None else execute(program, given, limits)
