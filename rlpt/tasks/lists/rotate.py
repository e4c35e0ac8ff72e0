"""Rotate a string of digits to the left: `rotate 2: 31425` -> `42531`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.lists.digit_string import DigitStringTask
from rlpt.types import Problem


@register("task", "rotate")
@dataclass(frozen=True)
class Rotate(DigitStringTask):
    """The first k digits go behind the others, k from 0 to the length; levels and credit of `DigitStringTask`."""

    name: ClassVar[str] = "rotate"

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Uniform digits and a uniform shift."""
        text = self.draw(rng, level)
        shift = rng.randint(0, len(text))
        return f"rotate {shift}: {text}", text[shift:] + text[:shift], {"text": text, "shift": shift}

    def solution(self, problem: Problem) -> str:
        """`3:4 4:2 5:5 1:3 2:1`: the digits with the positions they come from, in the answer's order."""
        text, shift = problem.meta["text"], problem.meta["shift"]
        positions = [(shift + i) % len(text) for i in range(len(text))]
        return " ".join(f"{position + 1}:{text[position]}" for position in positions)
