"""Countdown: reach a target from numbers by + - *, each used at most once: `countdown 8: 1 3 2` -> `(1+3)*2`.

Answers are read by a small parser of our own; no text is ever evaluated.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task
from rlpt.tasks.search_trace import Option, Search, check_search, search, show_search
from rlpt.types import Problem

NUMBERS = (1, 2, 3, 3, 4, 4, 5, 5, 6, 6)  # how many numbers, by level
LARGEST = (3, 5, 5, 9, 9, 20, 20, 50, 50, 99)  # the largest number, by level
OPERATORS = ("", "+", "+-", "+-*", "+-*", "+-*", "+-*", "+-*", "+-*", "+-*")  # by level
LARGEST_TARGET = 999
MOST_FAILED = 2  # candidates that a worked search checks in vain
_LARGEST_VALUE = 10**9
_DEEPEST = 32
_TOKEN = re.compile(r"0|[1-9][0-9]{0,8}|[-+*()]")
_STEP = re.compile(r"([0-9]{1,9})([-+*])([0-9]{1,9})=([0-9]{1,9})")


def parse_expression(text: str) -> tuple[int, list[int]] | None:
    """(value, numbers used) of an infix expression over non-negative integers with + - * and brackets; None where it is
    not one, is nested deeper than 32, or meets a value beyond 1e9."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text:
        return None
    used: list[int] = []

    def factor(at: int, depth: int) -> tuple[int, int] | None:
        if at >= len(tokens) or depth > _DEEPEST:
            return None
        if tokens[at].isdigit():
            used.append(int(tokens[at]))
            return used[-1], at + 1
        inner = chain(at + 1, depth + 1, "+-") if tokens[at] == "(" else None
        if inner is None or inner[1] >= len(tokens) or tokens[inner[1]] != ")":
            return None
        return inner[0], inner[1] + 1

    def chain(at: int, depth: int, operators: str) -> tuple[int, int] | None:
        left = chain(at, depth, "*") if operators == "+-" else factor(at, depth)
        while left is not None and left[1] < len(tokens) and tokens[left[1]] in operators:
            operator = tokens[left[1]]
            right = chain(left[1] + 1, depth, "*") if operators == "+-" else factor(left[1] + 1, depth)
            if right is None:
                return None
            value = combine(left[0], operator, right[0])
            left = (value, right[1]) if abs(value) <= _LARGEST_VALUE else None
        return left

    result = chain(0, 0, "+-")
    return (result[0], used) if result is not None and result[1] == len(tokens) else None


def combine(left: int, operator: str, right: int) -> int:
    """`left operator right` for + - and *."""
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


Item = tuple[int, str, str]  # value, expression, its outermost operator


def joined(left: Item, operator: str, right: Item) -> Item:
    """The two as one, with brackets where they are needed."""
    left_text = f"({left[1]})" if operator == "*" and left[2] in ("+", "-") else left[1]
    right_text = f"({right[1]})" if operator in ("*", "-") and right[2] in ("+", "-") else right[1]
    return combine(left[0], operator, right[0]), left_text + operator + right_text, operator


def join(rng: random.Random, numbers: Sequence[int], operators: str) -> tuple[int, str, list[str]]:
    """(value, expression, steps) of joining two random items until one is left; no item is negative, and none is a
    product above `LARGEST_TARGET`."""
    pool: list[Item] = [(number, str(number), "") for number in numbers]
    steps: list[str] = []
    while len(pool) > 1:
        left, right = (pool.pop(rng.randrange(len(pool))) for _ in range(2))
        operator = rng.choice(operators)
        if operator == "*" and left[0] * right[0] > LARGEST_TARGET:
            operator = "+"
        if operator == "-" and left[0] < right[0]:
            left, right = right, left
        pool.append(joined(left, operator, right))
        steps.append(f"{left[0]}{operator}{right[0]}={pool[-1][0]}")
    return pool[0][0], pool[0][1], steps


def expression(numbers: Sequence[int], steps: Sequence[str]) -> str:
    """What the operations, in order, make of the numbers; of several alike the last one is taken."""
    pool: list[Item] = [(number, str(number), "") for number in numbers]
    for step in steps:
        match = _STEP.fullmatch(step)
        assert match is not None
        left, right = (pool.pop(max(i for i, item in enumerate(pool) if item[0] == int(match[at]))) for at in (1, 3))
        pool.append(joined(left, match[2], right))
    return pool[0][1]


@dataclass(frozen=True)
class Joins:
    """Numbers left, as sorted tuples, until all are joined into one (`search_trace.Space`)."""

    revisits: ClassVar[bool] = True
    one_group_decides: ClassVar[bool] = False

    numbers: Sequence[int]
    target: int
    operators: str

    @property
    def start(self) -> tuple[int, ...]:
        """The given numbers."""
        return tuple(sorted(self.numbers))

    def groups(self, state: tuple[int, ...]) -> list[list[Option[tuple[int, ...]]]]:
        """A group for each two numbers: `2+4=6`, or `+` as an alternative, `4+2=6`, `4-2=2`, and so on, but for values
        below 0 and products that `join` doesn't make."""
        groups = []
        for low, high in dict.fromkeys(combinations(state, 2)):
            rest = list(state)
            rest.remove(low)
            rest.remove(high)
            options: list[Option[tuple[int, ...]]] = []
            for operator in self.operators:
                value = combine(high, operator, low)
                if operator != "*" or value <= LARGEST_TARGET:
                    after = tuple(sorted([*rest, value]))
                    orders = [(high, low)] if operator == "-" else [(low, high), (high, low)]
                    options += [Option(f"{a}{operator}{b}={value}", operator, after) for a, b in orders]
            groups.append(options)
        return groups

    def checks(self, state: tuple[int, ...]) -> dict[str, bool]:
        """`6!8` or `8=8`: the number that is left, beside the target."""
        (value,) = state
        return {f"{value}={value}": True} if value == self.target else {f"{value}!{self.target}": False}

    def searched(self, steps: Sequence[str]) -> Search[tuple[int, ...]]:
        """A search that fails at most `MOST_FAILED` times. It begins with as few of `steps`, which reach the target, as
        will do: at the last join there are no more than two other operators to fail with."""
        attempts = (search(self, steps[:given], MOST_FAILED) for given in range(len(self.numbers)))
        return next(attempt for attempt in attempts if attempt.solved)


@register("task", "countdown")
@dataclass(frozen=True)
class Countdown(Task):
    """Level l: `NUMBERS[l]` numbers up to `LARGEST[l]`, targets made with `OPERATORS[l]` from all of them.

    Right is any expression that uses each number at most once and equals the target. Else the credit adds 0.2 for an
    expression, 0.2 for only given numbers, and then 0.3 x the share of numbers used and 0.3 / (1 + distance to the
    target). At level 0 the target is the number, guessed among three with the end mark: 1 in 16.
    """

    name: ClassVar[str] = "countdown"
    unique_answer: ClassVar[bool] = False
    alphabet: ClassVar[str] = DIGITS + "+-*()"
    thought_alphabet: ClassVar[str] = DIGITS + "+-*= "

    search_trace: bool = False  # worked traces show a depth-first search, and answers are what it finds

    def __post_init__(self) -> None:
        if self.search_trace:
            show_search(self, DIGITS + "+-*=!")

    def legal_characters(self, level: int) -> str:
        """The level's operators and the digits of its numbers; brackets from three numbers on."""
        digits = DIGITS if LARGEST[level] > 9 else DIGITS[1 : LARGEST[level] + 1]
        brackets = "()" if "-" in OPERATORS[level] else ""
        return digits + OPERATORS[level] + brackets

    def answer_limit(self, level: int) -> int:
        """All numbers, the operators between them, and brackets around each inner operation."""
        count = NUMBERS[level]
        return count * len(str(LARGEST[level])) + (count - 1) + 2 * max(0, count - 2)

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Numbers and operations drawn until the target is none of several numbers, nor 0."""
        while True:
            numbers = [rng.randint(1, LARGEST[level]) for _ in range(NUMBERS[level])]
            target, answer, steps = join(rng, numbers, OPERATORS[level])
            if len(numbers) == 1 or (target != 0 and target not in numbers):
                break
        prompt = f"countdown {target}: {' '.join(map(str, numbers))}"
        if self.search_trace:
            answer = expression(numbers, Joins(numbers, target, OPERATORS[level]).searched(steps).path)
        return prompt, answer, {"numbers": numbers, "target": target, "steps": steps or [str(target)]}

    def solution(self, problem: Problem) -> str:
        """`1+3=4 4*2=8`: the operations in order; a lone number is its own step. With `search_trace`,
        `1+3=4|-* 2+4=6|-* ?6!8 <4-2=2|* ?2!8 <2*4=8 ?8=8`: see the module of that name."""
        if self.search_trace:
            return " ".join(self._space(problem).searched(problem.meta["steps"]).steps)
        return " ".join(problem.meta["steps"])

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right when its sum holds and its terms are still there: given, or made by an earlier right step;
        with `search_trace`, when the search may go on with it."""
        if self.search_trace:
            return check_search(self._space(problem), trace)
        pool = Counter(problem.meta["numbers"])
        scores = []
        for step in trace.split():
            match = _STEP.fullmatch(step) if step.isascii() else None
            if match is None:
                scores.append(float(step.isascii() and step.isdigit() and [step] == problem.meta["steps"]))
                continue
            left, operator, right, value = int(match[1]), match[2], int(match[3]), int(match[4])
            terms = Counter([left, right])
            right_step = combine(left, operator, right) == value and terms <= pool
            if right_step:
                pool = pool - terms + Counter([value])
            scores.append(float(right_step))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        parsed = parse_expression(answer)
        if parsed is None:
            return 0.0
        value, used = parsed
        numbers, target = problem.meta["numbers"], problem.meta["target"]
        if not Counter(used) <= Counter(numbers):
            return 0.2
        if value == target:
            return 1.0
        return 0.4 + 0.3 * len(used) / len(numbers) + 0.3 / (1 + abs(value - target))

    def _space(self, problem: Problem) -> Joins:
        return Joins(problem.meta["numbers"], problem.meta["target"], OPERATORS[problem.level])
