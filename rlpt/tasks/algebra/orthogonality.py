"""Pairs of integer vectors, a bit each: 1 where their dot product is 0: `orthogonality 1 -2|4 2; 3 1|-1 2` -> `10`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

DIMS = (2, 2, 2, 3, 3, 4, 4, 5, 5, 6)  # of a vector, by level
PAIRS = (1, 2, 3, 3, 4, 4, 4, 4, 4, 4)  # by level
LARGEST = (3, 5, 9, 5, 9, 5, 9, 5, 9, 9)  # size of an entry, by level
MISSES = (-6, -4, -3, -2, -1, 1, 2, 3, 4, 6)  # dot products of the pairs that are not orthogonal


@cache
def factors(largest: int) -> dict[int, list[tuple[int, int]]]:
    """Pairs of entries up to `largest` in size, not both 0, by their product."""
    found: dict[int, list[tuple[int, int]]] = {}
    for a in range(-largest, largest + 1):
        for b in range(-largest, largest + 1):
            if a or b:
                found.setdefault(a * b, []).append((a, b))
    return found


@cache
def summands(largest: int, total: int) -> list[tuple[int, int]]:
    """Pairs of products of such entries that sum to `total`."""
    return [(product, total - product) for product in factors(largest) if total - product in factors(largest)]


def vectors(rng: random.Random, dims: int, largest: int, dot: int) -> list[tuple[int, int]]:
    """The entries of two vectors by coordinate, with that dot product: all but two products drawn at random, signed so
    that their sum never exceeds one product, then two that make up the rest."""
    pairs_of = factors(largest)
    products: list[int] = []
    total = 0
    for product in rng.choices(list(pairs_of), k=dims - 2):
        products.append(-product if total * product > 0 else product)
        total += products[-1]
    products += rng.choice(summands(largest, dot - total))
    rng.shuffle(products)
    return [rng.choice(pairs_of[product]) for product in products]


def dot_steps(pair: Sequence[Sequence[int]]) -> list[str]:
    """The steps of one dot product, from its entries by coordinate: products, each with the sum so far, and the bit."""
    steps, total = [], 0
    for a, b in pair:
        total += a * b
        steps.append(f"{a}*{b}={a * b}:{total}")
    return [*steps, str(int(total == 0))]


@register("task", "orthogonality")
@dataclass(frozen=True)
class Orthogonality(Task):
    """Level l: `PAIRS[l]` pairs of vectors of `DIMS[l]` entries up to `LARGEST[l]` in size; half are orthogonal.

    The others are near misses, made the same way with one of the dot products `MISSES`. Credit: the square of the share
    of bits right, since any bits are half right. At level 0 a bit and the end mark are guessed: 1 in 9.
    """

    name: ClassVar[str] = "orthogonality"
    alphabet: ClassVar[str] = "01"
    thought_alphabet: ClassVar[str] = DIGITS + "-*=: "

    def answer_limit(self, level: int) -> int:
        """A bit a pair."""
        return PAIRS[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """A fair coin a pair, then vectors with that dot product."""
        bits = [rng.randrange(2) for _ in range(PAIRS[level])]
        pairs = [vectors(rng, DIMS[level], LARGEST[level], 0 if bit else rng.choice(MISSES)) for bit in bits]
        texts = ["|".join([" ".join(map(str, vector)) for vector in zip(*pair)]) for pair in pairs]
        return f"orthogonality {'; '.join(texts)}", "".join(map(str, bits)), {"pairs": pairs}

    def solution(self, problem: Problem) -> str:
        """`1*4=4:4 -2*2=-4:0 1 3*-1=-3:-3 1*2=2:-1 0`: the `dot_steps` of each pair."""
        return " ".join([step for pair in problem.meta["pairs"] for step in dot_steps(pair)])

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        return position_credit(answer, problem.answer) ** 2
