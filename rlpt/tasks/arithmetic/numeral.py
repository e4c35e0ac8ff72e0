"""What tasks on written numbers share: numbers of a length, and credit from the least significant digit."""

from __future__ import annotations

import random

from rlpt.tasks.base import position_credit


def random_number(rng: random.Random, num_digits: int) -> int:
    """Uniform among the numbers written with `num_digits` digits, 0 included among those of one."""
    return rng.randrange(10 ** (num_digits - 1) if num_digits > 1 else 0, 10**num_digits)


def aligned_credit(answer: str, expected: str) -> float:
    """Share of characters right, a sign among them, aligned at the least significant digit; 1 only for equality."""
    return position_credit(answer[::-1], expected[::-1])
