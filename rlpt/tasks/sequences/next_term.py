"""The next n terms of a sequence modulo m: `next_term x3 mod 7: 3 5 0 2 4 6` -> `135`.

A sequence is arithmetic, alternating (two arithmetic ones that take turns), Fibonacci-like (each term the sum of the
two before it) or of second order (its differences are arithmetic). What follows is unambiguous: six terms or more are
shown, and two sequences of these kinds with one modulus that agree on six terms agree for ever. Of one kind, four terms
fix the sequence. Every arithmetic sequence is alternating and of second order as well. Terms that look alternating and
of second order have a second difference whose fourfold is 0, so they are both throughout. And of the Fibonacci-like
ones only the zeros look like another kind.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

ARITHMETIC, ALTERNATING, FIBONACCI, SECOND_ORDER = range(4)
FIXED_BY = (2, 4, 2, 3)  # terms, by kind
DRAWN = (ARITHMETIC, ALTERNATING, FIBONACCI, ALTERNATING, SECOND_ORDER, SECOND_ORDER)  # kinds by how often they are
KINDS = (2, 2, 4, 5, 6, 6, 6, 6, 6, 6)  # how many of those are drawn from, by level
MODULI = ((3, 3), (5, 7), (6, 8), (7, 9), (7, 10), (7, 10), (8, 10), (8, 10), (8, 10), (8, 10))  # least, most, by level
SHOWN = (6, 6, 6, 6, 6, 7, 7, 8, 8, 8)  # terms, by level
ASKED = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12)  # terms, by level


def differences(terms: Sequence[int], modulus: int, lag: int = 1) -> list[int]:
    """Each term less the one `lag` places before it."""
    return [(after - before) % modulus for before, after in zip(terms, terms[lag:])]


def extend(kind: int, terms: Sequence[int], modulus: int, length: int) -> list[int]:
    """A sequence of a kind up to `length`, from its first `FIXED_BY[kind]` terms or more."""
    terms = list(terms)
    while len(terms) < length:
        if kind == ARITHMETIC:
            term = 2 * terms[-1] - terms[-2]
        elif kind == ALTERNATING:
            term = 2 * terms[-2] - terms[-4]
        elif kind == FIBONACCI:
            term = terms[-1] + terms[-2]
        else:
            term = 3 * terms[-1] - 3 * terms[-2] + terms[-3]
        terms.append(term % modulus)
    return terms


def kind_of(terms: Sequence[int], modulus: int) -> int:
    """The first of the kinds that the shown terms are of. Raises ValueError where there is none."""
    for kind, count in enumerate(FIXED_BY):
        if extend(kind, terms[:count], modulus, len(terms)) == list(terms):
            return kind
    raise ValueError(f"{terms} modulo {modulus} is of no known kind")


@register("task", "next_term")
@dataclass(frozen=True)
class NextTerm(Task):
    """Level l: `SHOWN[l]` terms of a sequence of one of the first `KINDS[l]` kinds drawn; the `ASKED[l]` after them.

    The modulus lies between the two `MODULI[l]`. Credit: share of terms right. At level 0 one of three digits and the
    end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "next_term"
    thought_alphabet: ClassVar[str] = DIGITS + "+= "

    def legal_characters(self, level: int) -> str:
        """Digits below the level's largest modulus."""
        return DIGITS[: MODULI[level][1]]

    def answer_limit(self, level: int) -> int:
        """A digit a term."""
        return ASKED[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Modulus and the terms that fix the sequence uniform."""
        kind, modulus = rng.choice(DRAWN[: KINDS[level]]), rng.randint(*MODULI[level])
        start = [int(rng.random() * modulus) for _ in range(FIXED_BY[kind])]
        terms = extend(kind, start, modulus, SHOWN[level] + ASKED[level])
        shown, asked = (list(map(str, part)) for part in (terms[: SHOWN[level]], terms[SHOWN[level] :]))
        prompt = f"next_term x{len(asked)} mod {modulus}: {' '.join(shown)}"
        return prompt, "".join(asked), {"terms": terms, "modulus": modulus}

    def solution(self, problem: Problem) -> str:
        """`22222 6+2=1 1+2=3 3+2=5`: the differences, then each next term as a sum.

        Where the differences are not constant, an alternating sequence shows those between every other term next
        (`33333` may then be `3636`); one of second order shows the differences' own, and before each next term the next
        difference as a sum.
        """
        terms, modulus, count = problem.meta["terms"], problem.meta["modulus"], SHOWN[problem.level]
        kind, first = kind_of(terms[:count], modulus), differences(terms, modulus)
        found = [first[: count - 1]]
        if kind == ALTERNATING:
            found.append(differences(terms[:count], modulus, 2))
        elif kind == SECOND_ORDER:
            found.append(differences(found[0], modulus))
        steps = ["".join(map(str, row)) for row in found]
        for i in range(count, len(terms)):
            before, added = terms[i - 1], first[i - 1]
            if kind == ALTERNATING:
                before, added = terms[i - 2], (terms[i] - terms[i - 2]) % modulus
            elif kind == FIBONACCI:
                before, added = terms[i - 2], terms[i - 1]
            elif kind == SECOND_ORDER:
                steps.append(f"{first[i - 2]}+{found[1][0]}={added}")
            steps.append(f"{before}+{added}={terms[i]}")
        return " ".join(steps)

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of terms right."""
        return position_credit(answer, problem.answer)
