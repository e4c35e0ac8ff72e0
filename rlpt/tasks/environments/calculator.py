"""An expression, and a tool that computes one operation a turn: `(12+7)*3` -> `12+7` (19), `19*3` (57), `57`."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from rlpt.registry import register
from rlpt.tasks.arithmetic.countdown import combine
from rlpt.tasks.base import DIGITS, position_credit
from rlpt.tasks.environments.base import INVALID, Environment, Observation, joined_length
from rlpt.types import Problem

OPERATIONS = (1, 1, 2, 2, 3, 3, 4, 5, 6, 7)  # how many, by level
OPERATORS = ("+-", "+-", "+-", "+-*", "+-*", "+-*", "+-*", "+-*", "+-*", "+-*")  # by level
LARGEST = (2, 9, 20, 20, 50, 99, 99, 300, 600, 999)  # the largest number in the expression, by level
LARGEST_VALUES = (2, 18, 60, 400, 999, 9999, 9999, 99999, 999999, 999999)  # of any operation, by level
BINDING = {"+": 1, "-": 1, "*": 2, "": 3}  # of operators; the last is a lone number
_OPERATION = re.compile(r"([0-9]{1,9})([-+*])([0-9]{1,9})")

Operation = tuple[int, str, int]


class CalculatorState(NamedTuple):
    """The operations that lead to the value, and how many of them were asked for."""

    operations: tuple[Operation, ...]
    value: int
    num_asked: int


def parse_operation(text: str) -> Operation | None:
    """`7*8` -> (7, "*", 8); None for anything else."""
    match = _OPERATION.fullmatch(text)
    return (int(match[1]), match[2], int(match[3])) if match else None


def num_asked_after(state: CalculatorState, asked: Operation) -> int:
    """How many operations are behind after `asked`: up to the first of the others that it is, else as many as before.
    The terms of a sum or product may stand in either order."""
    left, operator, right = asked
    forms = (asked,) if operator == "-" else (asked, (right, operator, left))
    ahead = state.operations[state.num_asked :]
    return next((i for i, wanted in enumerate(ahead, state.num_asked + 1) if wanted in forms), state.num_asked)


def draw_expression(
    rng: random.Random, count: int, operators: str, largest: int, largest_value: int
) -> tuple[str, list[Operation], int]:
    """(expression, operations, value): `count` operations, each between the last one's value and a new number.

    No value is negative or above `largest_value`: a product that would be becomes a sum, and such a sum a difference.
    """
    least = 0 if largest <= 2 else 2  # from 2 on there is something to compute
    value = rng.randint(least, largest)
    text, outermost = str(value), ""
    operations: list[Operation] = []
    for _ in range(count):
        number, operator = rng.randint(least, largest), rng.choice(operators)
        if operator == "*" and value * number > largest_value:
            operator = "+"
        if operator == "+" and value + number > largest_value:
            operator = "-"
        number_comes_first = value < number if operator == "-" else rng.random() < 0.5
        # The notation alone says which operation comes first: the inner one binds tighter, stands left or in brackets.
        is_bracketed = BINDING[outermost] < BINDING[operator] + number_comes_first
        inner = f"({text})" if is_bracketed else text
        text = f"{number}{operator}{inner}" if number_comes_first else f"{inner}{operator}{number}"
        operations.append((number, operator, value) if number_comes_first else (value, operator, number))
        value, outermost = combine(*operations[-1]), operator
    return text, operations, value


@register("task", "calculator")
@dataclass(frozen=True)
class Calculator(Environment):
    """Level l: `OPERATIONS[l]` operations out of `OPERATORS[l]` on numbers up to `LARGEST[l]`.

    A turn such as `7*8` asks the tool, which shows what that one operation gives; a number is the final answer and ends
    the episode. There are twice as many turns as are needed. Credit before the answer: half the share of operations
    asked for, in order; a wrong answer adds 0.3 x the share of its digits that are right. At level 0 values are 0, 1
    or 2: each of four turns of a random policy hits one of them 1 in 36 times.
    """

    name: ClassVar[str] = "calculator"
    alphabet: ClassVar[str] = DIGITS + "+-* "
    thought_alphabet: ClassVar[str] = alphabet

    def answer_limit(self, level: int) -> int:
        """Of all turns."""
        return joined_length(self.num_turns(level), self.turn_limit(level))

    def num_turns(self, level: int) -> int:
        """Twice the operations and the answer."""
        return 2 * (OPERATIONS[level] + 1)

    def turn_limit(self, level: int) -> int:
        """An operation on the largest value and the largest number."""
        return len(str(LARGEST_VALUES[level])) + 1 + len(str(LARGEST[level]))

    def setup(self, rng: random.Random, level: int) -> Mapping[str, Any]:
        """See `draw_expression`."""
        text, operations, value = draw_expression(
            rng, OPERATIONS[level], OPERATORS[level], LARGEST[level], LARGEST_VALUES[level]
        )
        return {"expression": text, "operations": [list(operation) for operation in operations], "value": value}

    def begin(self, problem: Problem) -> Observation:
        """The expression."""
        level, meta = problem.level, problem.meta
        operations = tuple((left, operator, right) for left, operator, right in meta["operations"])
        state = CalculatorState(operations, meta["value"], 0)
        digits = DIGITS if LARGEST_VALUES[level] > 9 else DIGITS[: LARGEST_VALUES[level] + 1]
        legal = digits + OPERATORS[level]
        return Observation(meta["expression"], state, self.num_turns(level), legal, self.turn_limit(level))

    def turn(self, observation: Observation, text: str) -> Observation:
        """A number ends the episode; an operation is computed; anything else is used up."""
        state: CalculatorState = observation.state
        expected = str(state.value)
        if text == expected:
            return replace(observation, text="", done=True, score=1.0)
        if text.isdigit():
            credit = 0.3 * position_credit(text[::-1], expected[::-1])
            return replace(observation, text="", done=True, score=observation.score + credit)
        operation = parse_operation(text)
        if operation is None:
            return replace(observation, text=INVALID)
        state = state._replace(num_asked=num_asked_after(state, operation))
        score = 0.5 * state.num_asked / len(state.operations)
        return replace(observation, text=str(combine(*operation)), state=state, score=score)

    def is_right(self, observation: Observation, text: str) -> bool:
        """The value at any time, or an operation that is still to be asked for."""
        state: CalculatorState = observation.state
        operation = parse_operation(text)
        if text == str(state.value) or operation is None:
            return text == str(state.value)
        return observation.turns_left > 1 and num_asked_after(state, operation) > state.num_asked

    def oracle(self, observation: Observation) -> str:
        """Asks for the operations in order, then answers; answers at once in the last turn."""
        state: CalculatorState = observation.state
        if observation.turns_left == 1 or state.num_asked == len(state.operations):
            return str(state.value)
        left, operator, right = state.operations[state.num_asked]
        return f"{left}{operator}{right}"
