"""Tasks whose answer is a program, or what is missing of one: what they share, and how each language runs one.

    bf_copy abc=abc: ,[           -> .,]
    befunge_print abc: "c         -> ba",,,@

The prompt shows one input with its output and the beginning of a program. Right is any end that makes a program which
prints what it should on that input and on hidden ones, and stops by itself.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Any, ClassVar

from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.tasks.esolangs import befunge, brainfuck
from rlpt.types import Problem

WELL_FORMED = 0.05  # credit of an answer that makes a program
STOPPED = 0.1  # added where it stops by itself
BEFUNGE_COMMANDS = DIGITS + "+-*!&v;<>^:#@_p.,\\g$"  # those of the number tasks


@dataclass(frozen=True)
class Draft:
    """A whole program and what it is for."""

    what: str  # the prompt between the task's name and the colon
    pieces: tuple[str, ...]  # of the program, in order
    missing: int  # pieces from the end that are to be written
    cases: tuple[tuple[str, str], ...]  # (input, output), the one that is shown first


@dataclass(frozen=True)
class ProgramWriting(Task):
    """Level l: write the last pieces of a program, at most `lengths[l]` characters out of `legal[l]`.

    Credit: 0.05 for a program, and over the inputs the mean of 0.1 for stopping and 0.85 x the share of output right.
    """

    unique_answer: ClassVar[bool] = False
    lengths: ClassVar[tuple[int, ...]]
    legal: ClassVar[tuple[str, ...]]

    @abstractmethod
    def draft(self, rng: random.Random, level: int) -> Draft:
        """A problem of `level`."""

    @abstractmethod
    def outcome(self, program: str, given: str) -> tuple[str, str]:
        """(output, how it ended) of a program on an input."""

    @abstractmethod
    def effects(self, before: str, pieces: Sequence[str], given: str) -> list[str]:
        """What each piece does when it is first met, on an input, in a program of `before` and the pieces."""

    def legal_characters(self, level: int) -> str:
        """The level's commands."""
        return self.legal[level]

    def answer_limit(self, level: int) -> int:
        """The longest end of ours and, where there is more than one way, some more."""
        return self.lengths[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """A draft without its last pieces."""
        draft = self.draft(rng, level)
        before = "".join(draft.pieces[: -draft.missing])
        pieces = draft.pieces[-draft.missing :]
        prompt = f"{self.name} {draft.what}: {before}".rstrip(" ")
        return (
            prompt,
            "".join(pieces),
            {
                "before": before,
                "pieces": list(pieces),
                "cases": [list(case) for case in draft.cases],
            },
        )

    def output_credit(self, output: str, expected: str) -> float:
        """Share of output right, in [0, 1]."""
        return position_credit(output, expected)

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        program, cases = problem.meta["before"] + answer, problem.meta["cases"]
        credit, right = 0.0, True
        for given, expected in cases:
            output, ended = self.outcome(program, given)
            if ended == "syntax":
                return 0.0
            if ended == "end" and output == expected:
                credit += 1 - WELL_FORMED
            else:
                right = False
                share = self.output_credit(output, expected)
                credit += STOPPED * (ended == "end") + (1 - WELL_FORMED - STOPPED) * share
        return 1.0 if right else WELL_FORMED + credit / len(cases)

    def solution(self, problem: Problem) -> str:
        """`,=97 [=97 .=a`: each piece with what it does on the input shown, when it is first met: the text it prints,
        else the number at the pointer or on top of the stack."""
        before, pieces, cases = (problem.meta[key] for key in ("before", "pieces", "cases"))
        effects = self.effects(before, pieces, cases[0][0])
        return " ".join(f"{piece}={effect}" for piece, effect in zip(pieces, effects))

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right where the oracle has it, or where the steps' pieces make a right program and it says truly
        what its piece does."""
        scores = super().check_steps(problem, trace)
        steps = [step.rpartition("=") for step in trace.split()]
        written = "".join(piece for piece, _, _ in steps)
        if min(scores, default=1.0) < 1 and self.verify(problem, written) == 1:
            effects = self.effects(
                problem.meta["before"], [piece for piece, _, _ in steps], problem.meta["cases"][0][0]
            )
            for i, ((piece, _, told), effect) in enumerate(zip(steps, effects)):
                scores[i] = max(scores[i], float(piece != "" and told == effect))
        return scores


@dataclass(frozen=True)
class BrainfuckWriting(ProgramWriting):
    """Programs in Brainf**k."""

    alphabet: ClassVar[str] = brainfuck.COMMANDS
    thought_alphabet: ClassVar[str] = brainfuck.COMMANDS + ascii_lowercase + DIGITS + "= "

    def encode(self, shown: str) -> str:
        """What a program reads for an input as it is shown."""
        return shown

    def decode(self, output: str) -> str:
        """An output as it is shown."""
        return output

    def outcome(self, program: str, given: str) -> tuple[str, str]:
        """See the base class."""
        run = brainfuck.run(program, self.encode(given))
        return self.decode(run.output), run.ended

    def effects(self, before: str, pieces: Sequence[str], given: str) -> list[str]:
        """A loop that is open after a piece has been entered once."""
        effects, program, known = [], before, self._run_once(before, given).output
        for piece in pieces:
            program += piece
            run = self._run_once(program, given)
            effects.append(self.decode(run.output[len(known) :]) or str(run.cell))
            known = run.output
        return effects

    def _run_once(self, program: str, given: str) -> brainfuck.Run:
        """The run of a program whose open brackets are left out."""
        open_at: list[int] = []
        for at, command in enumerate(program):
            if command == "[":
                open_at.append(at)
            elif command == "]" and open_at:
                open_at.pop()
        closed = "".join(command for at, command in enumerate(program) if at not in open_at)
        return brainfuck.run(closed, self.encode(given))


@dataclass(frozen=True)
class BefungeWriting(ProgramWriting):
    """Programs in Befunge-93; the space that follows the last number printed is dropped."""

    alphabet: ClassVar[str] = BEFUNGE_COMMANDS
    thought_alphabet: ClassVar[str] = BEFUNGE_COMMANDS + "=, "

    def outcome(self, program: str, given: str) -> tuple[str, str]:
        """See the base class."""
        run = befunge.run(program, given)
        return run.output.rstrip(" "), run.ended

    def effects(self, before: str, pieces: Sequence[str], given: str) -> list[str]:
        """After the last character of a piece is first executed: all that was printed (spaces as `,`) for a print or a
        stop, `-` where it never is executed."""
        program = before + "".join(pieces)
        log: list[tuple[int, int, int]] = []
        output = befunge.run(program, given, log=log).output
        first: dict[int, tuple[int, int]] = {}
        for cell, top, printed in log:
            first.setdefault(cell, (top, printed))
        width = max(map(len, program.split(befunge.ROW_END)))
        effects, end = [], len(before)
        for piece in pieces:
            end += len(piece)
            row, column = program.count(befunge.ROW_END, 0, end - 1), end - 1
            column -= program.rfind(befunge.ROW_END, 0, end - 1) + 1
            found = None if piece[-1:] in ("", befunge.ROW_END) else first.get(row * width + column)
            if found is None:
                effects.append("-")
            else:
                text = output[: found[1]].strip().replace(" ", ",")
                effects.append(text if piece[-1] in ".,@" and text else str(found[0]))
        return effects
