"""Inverses modulo a prime by the extended Euclidean algorithm: `modular_inverse 19: 3 26` -> `13 11`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

# Least and largest prime, how many numbers to invert, and the largest of them, by level
PRIMES = ((3, 3), (5, 7), (11, 13), (11, 19), (23, 43), (53, 97), (101, 199), (53, 97), (101, 199), (503, 997))
NUMBERS = (1, 1, 1, 2, 2, 2, 2, 3, 3, 3)
LARGEST = (20, 50, 99, 99, 99, 199, 499, 499, 999, 9999)


def is_prime(number: int) -> bool:
    """By trial division."""
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


_CHOICES = tuple([n for n in range(least, most + 1) if is_prime(n)] for least, most in PRIMES)


@register("task", "modular_inverse")
@dataclass(frozen=True)
class ModularInverse(Task):
    """Level l: `NUMBERS[l]` numbers up to `LARGEST[l]`, modulo a prime in `PRIMES[l]`. Credit: the mean over the
    inverses, which are separated by single spaces, of the share of characters right.

    At level 0 the answer is 1 or 2, guessed with the end mark: 1 in 9.
    """

    name: ClassVar[str] = "modular_inverse"
    alphabet: ClassVar[str] = DIGITS + " "
    thought_alphabet: ClassVar[str] = DIGITS + "-*%= "

    def legal_characters(self, level: int) -> str:
        """Digits of the residues but 0, and a space where there are several."""
        most = PRIMES[level][1]
        return (DIGITS if most > 10 else DIGITS[1:most]) + (" " if NUMBERS[level] > 1 else "")

    def answer_limit(self, level: int) -> int:
        """As many inverses as numbers, each as long as the largest prime."""
        return NUMBERS[level] * (len(str(PRIMES[level][1])) + 1) - 1

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """A residue and how many times the prime is added to it, both uniform."""
        prime, numbers = rng.choice(_CHOICES[level]), []
        for _ in range(NUMBERS[level]):
            residue = rng.randrange(1, prime)
            numbers.append(residue + prime * rng.randint(0, (LARGEST[level] - residue) // prime))
        answer = " ".join(str(pow(number, -1, prime)) for number in numbers)
        prompt = f"modular_inverse {prime}: {' '.join(map(str, numbers))}"
        return prompt, answer, {"prime": prime, "numbers": numbers}

    def solution(self, problem: Problem) -> str:
        """`26%19=7 19-2*7=5 0-2*1=-2 7-1*5=2 1-1*-2=3 5-2*2=1 -2-2*3=-8 -8%19=11`: the residue; then pairs of a
        remainder and its coefficient, both the last but one minus the quotient times the last; when the remainder is 1
        its coefficient is the inverse, up to the prime."""
        prime, steps = problem.meta["prime"], []
        for number in problem.meta["numbers"]:
            remainders, coefficients = (prime, number % prime), (0, 1)
            steps.append(f"{number}%{prime}={remainders[1]}")
            while remainders[1] != 1:
                quotient = remainders[0] // remainders[1]
                pairs = []
                for before, last in (remainders, coefficients):
                    pairs.append((last, before - quotient * last))
                    steps.append(f"{before}-{quotient}*{last}={before - quotient * last}")
                remainders, coefficients = pairs
            steps.append(f"{coefficients[1]}%{prime}={coefficients[1] % prime}")
        return " ".join(steps)

    def grade(self, problem: Problem, answer: str) -> float:
        """Mean over the inverses of the share of characters right; 1 only for equality."""
        given, expected = answer.split(" "), problem.answer.split(" ")
        return sum(map(position_credit, given, expected)) / max(len(given), len(expected))
