"""Linear equations with one integer solution: `linear_equations 2x+y=5 x-y=1` -> `2,1` (x, then y, then z)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

UNKNOWNS = (1, 1, 2, 2, 2, 2, 3, 3, 3, 3)  # by level
COEFFICIENTS = (9, 30, 3, 5, 9, 20, 3, 5, 7, 9)  # size of the largest, by level
SOLUTIONS = (2, 9, 9, 9, 12, 20, 9, 9, 12, 20)  # size of the largest, by level; level 0 has none below 0
NAMES = "xyz"
_TERM = re.compile(r"([+-]?)([1-9][0-9]{0,8})?([xyz])")
_CONSTANT = re.compile(r"0|-?[1-9][0-9]{0,8}")
Row = list[int]  # the coefficients of an equation and, last, its right side


def equation_text(row: Sequence[int]) -> str:
    """`2x-y=5`; `0=5` where no unknown is left."""
    text = ""
    for name, coefficient in zip(NAMES, row[:-1]):
        if coefficient:
            text += f"{coefficient:+d}{name}" if abs(coefficient) > 1 else f"{'+' if coefficient > 0 else '-'}{name}"
    return f"{text.removeprefix('+') or 0}={row[-1]}"


def parse_equation(text: str, num_unknowns: int) -> Row | None:
    """The row of an equation written as `equation_text` does; None for any other text."""
    left, _, right = text.partition("=")
    if not text.isascii() or _CONSTANT.fullmatch(right) is None:
        return None
    row = [0] * (num_unknowns + 1)
    for sign, size, name in _TERM.findall(left):
        if NAMES.index(name) < num_unknowns:
            row[NAMES.index(name)] = int(sign + (size or "1"))
    row[-1] = int(right)
    return row if any(row[:-1]) and equation_text(row) == text else None


def reduced(row: Row) -> Row:
    """Divided by the common divisor of all its numbers, and by -1 where the first coefficient is negative."""
    first = next(number for number in row if number)
    divisor = gcd(*row) if first > 0 else -gcd(*row)
    return [number // divisor for number in row]


def without(column: int, row: Row, pivot: Row) -> Row:
    """The combination of two rows that lacks the unknown of `column`, by the least whole multiples."""
    common = gcd(row[column], pivot[column])
    return [a * (pivot[column] // common) - b * (row[column] // common) for a, b in zip(row, pivot)]


def elimination(system: Sequence[Row]) -> list[Row]:
    """The equations that are written down while a regular system is solved in integers: each row after an unknown has
    left it, and again once it is divided; first downwards, then back up to `x=..` from the last unknown on."""
    rows, written = list(system), []

    def write(at: int, row: Row) -> None:
        rows[at] = reduced(row)
        written.extend([row] if row == rows[at] else [row, rows[at]])

    def size(at: int) -> tuple[int, int]:  # the fewest unknowns second: an unknown that is known is not found again
        return abs(rows[at][column]), sum(number != 0 for number in rows[at][:-1])

    for column in range(len(rows)):
        best = min((at for at in range(column, len(rows)) if rows[at][column]), key=size)
        rows[column], rows[best] = rows[best], rows[column]
        for at in range(column + 1, len(rows)):
            if rows[at][column]:
                write(at, without(column, rows[at], rows[column]))
    for column in reversed(range(len(rows))):
        if reduced(rows[column]) != rows[column]:
            rows[column] = reduced(rows[column])
            written.append(rows[column])
        for at in reversed(range(column)):
            if rows[at][column]:
                write(at, without(column, rows[at], rows[column]))
    return written


def determinant(rows: Sequence[Sequence[int]]) -> int:
    """Of a square matrix, along its first row."""
    if not rows:
        return 1
    minors = ([[*row[:i], *row[i + 1 :]] for row in rows[1:]] for i in range(len(rows)))
    return sum((-1) ** i * entry * determinant(minor) for i, (entry, minor) in enumerate(zip(rows[0], minors)))


def regular_matrix(rng: random.Random, size: int, largest: int) -> list[list[int]]:
    """Entries other than 0, drawn; a corner that would make its leading minor 0 is drawn among the others."""
    entries = [entry for entry in range(-largest, largest + 1) if entry]
    matrix = [rng.choices(entries, k=size) for _ in range(size)]
    for corner in range(1, size):
        block = [row[: corner + 1] for row in matrix[: corner + 1]]
        minor = determinant([row[:corner] for row in block[:corner]])
        rest = determinant(block) - block[corner][corner] * minor
        matrix[corner][corner] = rng.choice([entry for entry in entries if entry * minor + rest])
    return matrix


@register("task", "linear_equations")
@dataclass(frozen=True)
class LinearEquations(Task):
    """Level l: `UNKNOWNS[l]` unknowns and equations; coefficients up to `COEFFICIENTS[l]`, solutions to `SOLUTIONS[l]`.

    Credit: half the share of unknowns right, half that of characters. At level 0 the solution is one of three digits,
    guessed with the end mark: 1 in 16.
    """

    name: ClassVar[str] = "linear_equations"
    alphabet: ClassVar[str] = DIGITS + "-,"
    thought_alphabet: ClassVar[str] = DIGITS + "xyz+-= "

    def legal_characters(self, level: int) -> str:
        """Digits, from level 1 the sign, and a comma between unknowns; at level 0 the digits of its solutions."""
        if level == 0:
            return DIGITS[: SOLUTIONS[0] + 1]
        return DIGITS + ("-," if UNKNOWNS[level] > 1 else "-")

    def answer_limit(self, level: int) -> int:
        """The unknowns at their longest, and commas between them."""
        return (UNKNOWNS[level] * (len(f"-{SOLUTIONS[level]}") + 1) - 1) if level else 1

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Solution first, then a regular matrix; a lone coefficient is at least 2 so that something is to be solved."""
        largest = SOLUTIONS[level]
        solution = [rng.randint(-largest if level else 0, largest) for _ in range(UNKNOWNS[level])]
        if len(solution) == 1:
            matrix = [[rng.randint(2, COEFFICIENTS[level]) * (rng.choice((-1, 1)) if level else 1)]]
        else:
            matrix = regular_matrix(rng, len(solution), COEFFICIENTS[level])
        rows = [[*row, sum(a * value for a, value in zip(row, solution))] for row in matrix]
        prompt = f"linear_equations {' '.join(map(equation_text, rows))}"
        return prompt, ",".join(map(str, solution)), {"rows": rows, "solution": solution}

    def solution(self, problem: Problem) -> str:
        """`3y=3 y=1 x=2`: the equations of `elimination`."""
        return " ".join(map(equation_text, elimination(problem.meta["rows"])))

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right when it is an equation that the solution satisfies and is news: no multiple of one that is
        there, unless it is that one divided."""
        solution, scores = problem.meta["solution"], []
        seen = {tuple(row) for row in problem.meta["rows"]}
        known = {tuple(reduced(row)) for row in problem.meta["rows"]}
        for step in trace.split():
            row = parse_equation(step, len(solution))
            if row is None or sum(a * value for a, value in zip(row, solution)) != row[-1]:
                scores.append(0.0)
                continue
            simple = tuple(reduced(row))
            scores.append(float(tuple(row) not in seen and (simple not in known or simple == tuple(row))))
            seen.add(tuple(row))
            known.add(simple)
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        given, expected = answer.split(","), problem.answer.split(",")
        right = sum(a == b for a, b in zip(given, expected)) / max(len(given), len(expected))
        return 0.5 * right + 0.5 * position_credit(answer, problem.answer)
