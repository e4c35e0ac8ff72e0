"""An input for which a program gives a certain output: `34+:?=127` -> `12` on a stack machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.base import position_credit
from rlpt.tasks.programs.base import RUNS, ProgramTask
from rlpt.tasks.programs.language import BETWEEN, GIVES, UNKNOWN
from rlpt.types import Problem


@register("task", "abduction")
@dataclass(frozen=True)
class Abduction(ProgramTask):
    """Any input that leads to the output is right. Credit: 0.05 for one that the program runs on, and the share of its
    output that is right."""

    name: ClassVar[str] = "abduction"
    unique_answer: ClassVar[bool] = False

    def legal_characters(self, level: int) -> str:
        """Values of the level."""
        return self.limits(level).values

    def answer_limit(self, level: int) -> int:
        """The longest input."""
        return self.limits(level).given

    def asked(self, program: str, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, str]:
        return f"{program}{BETWEEN}{UNKNOWN}{GIVES}{outputs[0]}", inputs[0]

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        output = self.micro.run(problem.meta["program"], answer)
        if output is None:
            return 0.0
        credit = position_credit(output, problem.meta["outputs"][0])
        return 1.0 if credit == 1 else RUNS + (1 - RUNS) * credit
