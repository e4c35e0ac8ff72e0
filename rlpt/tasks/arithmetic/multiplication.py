"""Long multiplication by partial products: `multiply 34*27` -> `918`."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.arithmetic.numeral import aligned_credit, random_number
from rlpt.tasks.base import DIGITS, Task
from rlpt.types import Problem

# Digits of the two factors by level. Level 0 has the products SMALL_PRODUCTS, each as often: one digit, and made in
# several ways, so that no product's only prompts are held out.
DIGIT_COUNTS = ((1, 1), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (4, 4), (5, 5), (6, 6))
SMALL_PRODUCTS = (4, 6, 8)
SMALL_FACTORS = tuple(
    tuple((a, b) for a in range(1, 10) for b in range(1, 10) if a * b == product) for product in SMALL_PRODUCTS
)
_STEP = re.compile(r"([0-9]{1,12})([+*])([0-9]{1,12})=([0-9]{1,12})")


def place_values(number: int) -> list[int]:
    """The digits of `number` by their worth, from the right: 207 -> 7, 0, 200."""
    return [int(digit) * 10**place for place, digit in enumerate(reversed(str(number)))]


@register("task", "multiplication")
@dataclass(frozen=True)
class Multiplication(Task):
    """Level l: `DIGIT_COUNTS[l]` digits a factor. Credit: share of digits right, aligned at the least significant one.

    At level 0 the answer is one of three digits, guessed with the end mark: 1 in 16. The first levels have few
    different problems (11 at level 0, 100 at level 1).
    """

    name: ClassVar[str] = "multiplication"
    thought_alphabet: ClassVar[str] = DIGITS + "+*= "

    def legal_characters(self, level: int) -> str:
        """All digits, at level 0 the small products."""
        return DIGITS if level else "".join(map(str, SMALL_PRODUCTS))

    def answer_limit(self, level: int) -> int:
        """Digits of the largest product."""
        return sum(DIGIT_COUNTS[level]) if level else 1

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Factors uniform among the numbers of their length."""
        if level == 0:
            first, second = rng.choice(rng.choice(SMALL_FACTORS))
        else:
            first, second = (random_number(rng, count) for count in DIGIT_COUNTS[level])
        return f"multiply {first}*{second}", str(first * second), {"first": first, "second": second}

    def solution(self, problem: Problem) -> str:
        """`34*7=238 34*20=680 238+680=918`: the first factor times each digit's worth in the second, added up."""
        first, steps, total = problem.meta["first"], [], 0
        for place, worth in enumerate(place_values(problem.meta["second"])):
            product = first * worth
            steps.append(f"{first}*{worth}={product}")
            if place:
                steps.append(f"{total}+{product}={total + product}")
            total += product
        return " ".join(steps)

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A product is right for a digit's worth of the second factor that has none yet, a sum for two partial results
        that are still there; the order does not matter."""
        first, worths = problem.meta["first"], Counter(place_values(problem.meta["second"]))
        partial: Counter[int] = Counter()
        scores = []
        for step in trace.split():
            match = _STEP.fullmatch(step)
            if match is None:
                scores.append(0.0)
                continue
            left, right, value = int(match[1]), int(match[3]), int(match[4])
            if match[2] == "*":
                right_step = left == first and worths[right] > 0 and value == left * right
                worths[right] -= right_step
            else:
                terms = Counter([left, right])
                right_step = value == left + right and terms <= partial
                partial -= terms if right_step else Counter()
            partial[value] += right_step
            scores.append(float(right_step))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of digits right, aligned at the least significant one."""
        return aligned_credit(answer, problem.answer)
