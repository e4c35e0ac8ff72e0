"""What a program gives for an input: `34+:12=?` -> `127` on a stack machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.base import position_credit
from rlpt.tasks.programs.base import ProgramTask
from rlpt.tasks.programs.language import BETWEEN, GIVES, UNKNOWN
from rlpt.types import Problem


@register("task", "deduction")
@dataclass(frozen=True)
class Deduction(ProgramTask):
    """Credit: share of positions right. At level 0 of the stack machine one of two bits and the end mark are guessed:
    1 in 9."""

    name: ClassVar[str] = "deduction"

    def legal_characters(self, level: int) -> str:
        """Values of the level."""
        return self.limits(level).values

    def answer_limit(self, level: int) -> int:
        """The longest output."""
        return self.limits(level).output

    def asked(self, program: str, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, str]:
        return f"{program}{BETWEEN}{inputs[0]}{GIVES}{UNKNOWN}", outputs[0]

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of positions right."""
        return position_credit(answer, problem.answer)
