"""What deduction, abduction and induction share: a problem is made of a program and inputs that it runs on.

The three ways of reasoning about a triplet of program, input and output are those of Absolute Zero (Zhao et al. 2025,
arXiv:2505.03335, section 3.2).
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.tasks.base import Task, keyed_random
from rlpt.tasks.esolangs import brainfuck
from rlpt.tasks.programs.language import BETWEEN, Limits, MicroLanguage, language
from rlpt.tasks.programs.stack_language import COMMANDS
from rlpt.types import Problem

RUNS = 0.05  # credit of a wrong answer that can be run
DRAFTS = 10_000  # that are looked at for one that is within the limits


@dataclass(frozen=True)
class ProgramTask(Task):
    """Level l: programs, inputs and outputs as `levels[l]` of the language says."""

    alphabet: ClassVar[str] = COMMANDS + brainfuck.COMMANDS.replace("+", "")
    thought_alphabet: ClassVar[str] = alphabet + " "
    num_inputs: ClassVar[int] = 1  # that a problem is made of
    proposes_input: ClassVar[bool] = True  # whether a proposal has an input of its own; else inputs are drawn

    language: str = "stack"

    def __post_init__(self) -> None:
        language(self.language)  # an unknown name is refused here

    @property
    def micro(self) -> MicroLanguage:
        """The language."""
        return language(self.language)

    def limits(self, level: int) -> Limits:
        """Of the level."""
        return self.micro.levels[level]

    @abstractmethod
    def asked(self, program: str, inputs: Sequence[str], outputs: Sequence[str]) -> tuple[str, str]:
        """(prompt, oracle's answer)."""

    def problem_of(self, program: str, inputs: Sequence[str], outputs: Sequence[str], level: int, seed: int) -> Problem:
        """The problem made of a program whose outputs for the inputs are known; `seed` only names it."""
        prompt, answer = self.asked(program, inputs, outputs)
        meta = {"program": program, "inputs": list(inputs), "outputs": list(outputs)}
        return Problem(self.name, seed, level, prompt, answer, meta)

    def outputs(self, program: str, inputs: Sequence[str], level: int) -> list[str] | None:
        """Of a program for inputs; None where one of them is not within the level's limits."""
        found = [self.micro.output(program, given, level) for given in inputs]
        outputs = [output for output in found if output is not None]
        return outputs if len(outputs) == len(found) else None

    def inputs(self, key: int, level: int) -> list[str]:
        """The inputs of the proposal named `key`, for a task whose proposals are programs alone."""
        rng = keyed_random(self.name, key, level, "inputs")
        return [self.micro.given(rng, level) for _ in range(self.num_inputs)]

    def read(self, text: str) -> tuple[str, str] | None:
        """(program, input) of a proposal `program:input`, or (program, "") where only a program is asked for; None
        where the text has another shape."""
        program, mark, given = text.partition(BETWEEN)
        if not program or bool(mark) != self.proposes_input or bool(given) != self.proposes_input or BETWEEN in given:
            return None
        return program, given

    def write(self, program: str, given: str) -> str:
        """The proposal that `read` reads."""
        return program + BETWEEN + given if self.proposes_input else program

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Random programs and inputs, until all outputs are within the limits."""
        for _ in range(DRAFTS):
            program = self.micro.draft(rng, level)
            inputs = [self.micro.given(rng, level) for _ in range(self.num_inputs)]
            outputs = self.outputs(program, inputs, level)
            if outputs is not None:
                problem = self.problem_of(program, inputs, outputs, level, 0)
                return problem.prompt, problem.answer, problem.meta
        raise AssertionError(f"language {self.language}: none of {DRAFTS} drafts of level {level} fits its limits")

    def solution(self, problem: Problem) -> str:
        """The run on the first input, step by step."""
        return " ".join(self.micro.trace(problem.meta["program"], problem.meta["inputs"][0]))

    def proposal_characters(self, level: int) -> str:
        """Characters that a proposal of the level may hold."""
        limits = self.limits(level)
        return limits.commands + (limits.values + BETWEEN if self.proposes_input else "")

    def proposal_limit(self, level: int) -> int:
        """Its longest, in characters."""
        limits = self.limits(level)
        return limits.program + (1 + limits.given if self.proposes_input else 0)
