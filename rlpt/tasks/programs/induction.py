"""A program that gives certain outputs for certain inputs, and for hidden ones: `?:12=3 45=9` -> `+`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from rlpt.registry import register
from rlpt.tasks.base import position_credit
from rlpt.tasks.programs.base import RUNS, ProgramTask
from rlpt.tasks.programs.language import BETWEEN, GIVES, UNKNOWN
from rlpt.types import Problem

SHOWN, HIDDEN = 3, 3  # inputs of a problem


@register("task", "induction")
@dataclass(frozen=True)
class Induction(ProgramTask):
    """Three inputs are shown with their outputs, and three are hidden; right is a program that gives the right output
    for all six. Credit: 0.05 for one that runs on one of them, and the mean share of output right. (A binary reward, as
    Absolute Zero has it, is `correct` with `exact_only`.)
    """

    name: ClassVar[str] = "induction"
    unique_answer: ClassVar[bool] = False
    num_inputs: ClassVar[int] = SHOWN + HIDDEN
    proposes_input: ClassVar[bool] = False

    def legal_characters(self, level: int) -> str:
        """Commands of the level."""
        return self.limits(level).commands

    def answer_limit(self, level: int) -> int:
        """The longest program."""
        return self.limits(level).program

    def asked(self, program: str, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, str]:
        pairs = [given + GIVES + output for given, output in zip(inputs[:SHOWN], outputs)]
        return f"{UNKNOWN}{BETWEEN}{' '.join(pairs)}", program

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        outputs = [self.micro.run(answer, given) for given in problem.meta["inputs"]]
        if all(output is None for output in outputs):
            return 0.0
        credit = fmean(position_credit(o or "", wanted) for o, wanted in zip(outputs, problem.meta["outputs"]))
        return 1.0 if credit == 1 else RUNS + (1 - RUNS) * credit
