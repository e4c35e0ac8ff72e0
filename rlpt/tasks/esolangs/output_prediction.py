"""Tasks whose answer is what a given program prints: `bf_copy_output ,,.. ab` -> `bb`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.tasks.base import Task, position_credit
from rlpt.types import Problem


@dataclass(frozen=True)
class OutputPrediction(Task):
    """Level l: at most `lengths[l]` characters out of `legal[l]`. Credit: share of positions right."""

    lengths: ClassVar[tuple[int, ...]]
    legal: ClassVar[tuple[str, ...]]

    @abstractmethod
    def steps(self, meta: Mapping[str, Any]) -> list[str]:
        """The run in the steps that matter."""

    def legal_characters(self, level: int) -> str:
        """Characters that programs of the level print."""
        return self.legal[level]

    def answer_limit(self, level: int) -> int:
        """The longest output."""
        return self.lengths[level]

    def solution(self, problem: Problem) -> str:
        """The steps of the run."""
        return " ".join(self.steps(problem.meta))

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of positions right."""
        return position_credit(answer, problem.answer)


def exchange(reads: tuple[int, ...], given: str, output: str) -> list[str]:
    """`,a .a ,b`: what a Brainf**k program read and printed, in order; `reads` is that of the run."""
    steps, done = [], 0
    for before, printed in zip(reads, output):
        steps += [f",{character}" for character in given[done:before]]
        steps.append(f".{printed}")
        done = max(done, min(before, len(given)))
    return steps
