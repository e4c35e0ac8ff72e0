"""Evaluate an expression with + - * and brackets: `expression (3-5)*2+1` -> `-3`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.arithmetic.countdown import combine
from rlpt.tasks.arithmetic.numeral import aligned_credit
from rlpt.tasks.base import DIGITS, Task
from rlpt.types import Problem

NUMBERS = (2, 2, 3, 4, 5, 6, 7, 8, 10, 12)  # how many digits 1..9, by level
OPERATORS = ("+-", "+-", "+-", "+-*", "+-*", "+-*", "+-*", "+-*", "+-*", "+-*")  # by level
LARGEST = (2, 99, 99, 99, 99, 999, 999, 999, 9999, 9999)  # magnitude of any value on the way, by level
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "": 3}


@dataclass(frozen=True)
class Part:
    """An expression and what it comes to."""

    text: str
    value: int
    operator: str = ""  # the outermost; empty for a number
    step: int = -1  # index of its operation among the steps; -1 for a number


def build(rng: random.Random, count: int, operators: str, largest: int, steps: list[tuple[str, list[int]]]) -> Part:
    """A random expression of `count` digits whose values stay within `largest`. To `steps` go its operations, inner
    ones first, each with the indices of those that it needs."""
    if count == 1:
        digit = rng.randint(1, 9)
        return Part(str(digit), digit)
    size = rng.randint(1, count - 1)
    left = build(rng, size, operators, largest, steps)
    right = build(rng, count - size, operators, largest, steps)
    operator = rng.choice(operators)
    if abs(combine(left.value, operator, right.value)) > largest:
        operator = "-" if (left.value < 0) == (right.value < 0) else "+"  # no larger than the larger of the two
    value = combine(left.value, operator, right.value)
    steps.append(
        (f"{left.value}{operator}{right.value}={value}", [part.step for part in (left, right) if part.step >= 0])
    )
    # The text is read from left to right, so a right part that binds no tighter has brackets.
    left_text = f"({left.text})" if _PRECEDENCE[left.operator] < _PRECEDENCE[operator] else left.text
    right_text = f"({right.text})" if _PRECEDENCE[right.operator] <= _PRECEDENCE[operator] else right.text
    return Part(left_text + operator + right_text, value, operator, len(steps) - 1)


def small_sum(rng: random.Random, largest: int) -> tuple[str, int]:
    """A sum or difference of two digits that is 0..largest, each as often."""
    value = rng.randint(0, largest)
    if rng.random() < 0.5:
        left = rng.randint(0, value)
        return f"{left}+{value - left}", value
    right = rng.randint(0, 9 - value)
    return f"{value + right}-{right}", value


@register("task", "expression")
@dataclass(frozen=True)
class Expression(Task):
    """Level l: `NUMBERS[l]` digits, operators out of `OPERATORS[l]`, no value beyond `LARGEST[l]`. Credit: share of
    characters right, aligned at the least significant digit.

    At level 0 the answer is one of three digits, guessed with the end mark: 1 in 16.
    """

    name: ClassVar[str] = "expression"
    alphabet: ClassVar[str] = DIGITS + "-"
    thought_alphabet: ClassVar[str] = DIGITS + "+-*= "

    def legal_characters(self, level: int) -> str:
        """Digits and the sign, at level 0 the small values."""
        return self.alphabet if level else DIGITS[: LARGEST[level] + 1]

    def answer_limit(self, level: int) -> int:
        """Digits of the largest value and a sign."""
        return len(str(LARGEST[level])) + (level > 0)

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """See `build`; at level 0 `small_sum`."""
        if level == 0:
            text, value = small_sum(rng, LARGEST[level])
            return f"expression {text}", str(value), {"steps": [f"{text}={value}"], "needs": [[]]}
        operations: list[tuple[str, list[int]]] = []
        part = build(rng, NUMBERS[level], OPERATORS[level], LARGEST[level], operations)
        steps, needs = [step for step, _ in operations], [indices for _, indices in operations]
        return f"expression {part.text}", str(part.value), {"steps": steps, "needs": needs}

    def solution(self, problem: Problem) -> str:
        """`3-5=-2 -2*2=-4 -4+1=-3`: the operations, inner ones first, with the values they meet."""
        return " ".join(problem.meta["steps"])

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right when it is an operation that was not done before and whose terms were worked out."""
        steps, needs = problem.meta["steps"], problem.meta["needs"]
        done: set[int] = set()
        scores = []
        for step in trace.split():
            ready = [i for i in range(len(steps)) if steps[i] == step and i not in done and done.issuperset(needs[i])]
            done.update(ready[:1])
            scores.append(float(bool(ready)))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of characters right, aligned at the least significant digit."""
        return aligned_credit(answer, problem.answer)
