"""Evaluate formulas under given truth values, one bit each: `boolean abc=100: (a&!b) (b|c)` -> `10`."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import Task, position_credit
from rlpt.tasks.logic.formula import VALUES, with_values
from rlpt.types import Problem

FORMULAS = (1, 2, 2, 3, 3, 4, 5, 6, 6, 7)  # by level
LEAVES = (1, 1, 2, 2, 3, 3, 3, 3, 4, 4)  # different letters in each formula, by level
VARIABLES = (3, 3, 3, 4, 4, 5, 5, 6, 6, 6)  # that have a value, by level
OPERATORS = ("&|", "&|", "&|", "&|^", "&|^", "&|^", "&|^", "&|^", "&|^", "&|^")  # by level
LETTERS = "abcdef"
_NEGATED = 0.4  # share of the letters with `!`
_REDEX = re.compile(r"\(([01][&|^][01])\)")


def random_formula(rng: random.Random, letters: Sequence[str], operators: str) -> str:
    """A formula with these letters in order, a bracket pair around each operator: `((a&!b)|c)`."""
    if len(letters) == 1:
        return "!" + letters[0] if rng.random() < _NEGATED else letters[0]
    split = 1 + int(rng.random() * (len(letters) - 1))
    left, right = (random_formula(rng, part, operators) for part in (letters[:split], letters[split:]))
    return f"({left}{operators[int(rng.random() * len(operators))]}{right})"


def reduced(text: str, count: int = 0) -> str:
    """`text` with the first `count` operators whose two sides are known replaced by their values; all if 0."""
    return _REDEX.sub(lambda match: VALUES[match[1]], text, count=count)


@register("task", "boolean")
@dataclass(frozen=True)
class Boolean(Task):
    """Level l: `FORMULAS[l]` formulas with `LEAVES[l]` letters each. Credit: share of bits right.

    At level 0 the answer is one bit, guessed with the end mark: 1 in 9.
    """

    name: ClassVar[str] = "boolean"
    alphabet: ClassVar[str] = "01"
    thought_alphabet: ClassVar[str] = "01()&|^ "

    def answer_limit(self, level: int) -> int:
        """A bit for each formula."""
        return FORMULAS[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform values, uniform splits of the formulas."""
        letters = LETTERS[: VARIABLES[level]]
        bits = f"{rng.getrandbits(len(letters)):0{len(letters)}b}"
        formulas = [
            random_formula(rng, rng.sample(letters, LEAVES[level]), OPERATORS[level]) for _ in range(FORMULAS[level])
        ]
        text = with_values(" ".join(formulas), dict(zip(letters, bits)))
        for _ in range(LEAVES[level] - 1):
            text = reduced(text)
        prompt = f"boolean {letters}={bits}: {' '.join(formulas)}"
        return prompt, text.replace(" ", ""), {"values": dict(zip(letters, bits)), "formulas": formulas}

    def solution(self, problem: Problem) -> str:
        """`((1&1)|0) (1|0) 1`: each formula with its values, then one operator after the other, to its bit."""
        steps = []
        for formula in problem.meta["formulas"]:
            steps.append(with_values(formula, problem.meta["values"]))
            while len(steps[-1]) > 1:
                steps.append(reduced(steps[-1], 1))
        return " ".join(steps)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right when it writes the values into the next formula, or works out one operator, whichever, of the
        last right step."""
        waiting = [with_values(formula, problem.meta["values"]) for formula in reversed(problem.meta["formulas"])]
        current, scores = "", []
        for step in trace.split():
            allowed = waiting[-1:]
            if len(current) > 1:
                allowed = [
                    current[: match.start()] + VALUES[match[1]] + current[match.end() :]
                    for match in _REDEX.finditer(current)
                ]
            scores.append(float(step in allowed))
            if step in allowed:
                if len(current) <= 1:
                    waiting.pop()
                current = step
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of bits right."""
        return position_credit(answer, problem.answer)
