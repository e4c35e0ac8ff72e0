"""Completion of a Dyck word, the closing brackets that it lacks: `brackets ([]{` -> `})`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import Task, position_credit
from rlpt.types import Problem

OPENING, CLOSING = "([{<", ")]}>"
CLOSER = dict(zip(OPENING, CLOSING))
KINDS = (3, 3, 4, 4, 4, 4, 4, 4, 4, 4)  # of brackets, by level
LENGTHS = (3, 4, 6, 9, 12, 15, 18, 22, 27, 30)  # of what is given, by level
MISSING = (1, 2, 2, 3, 4, 5, 6, 8, 9, 10)  # closing brackets, by level; as even as the length
NOTHING = "-"  # a trace's word for no bracket that is open


def owed_after_each(text: str) -> list[str]:
    """After each bracket of a Dyck word's beginning: the closing brackets that it lacks, the innermost first."""
    owed, found = "", []
    for bracket in text:
        owed = CLOSER[bracket] + owed if bracket in CLOSER else owed[1:]
        found.append(owed)
    return found


@register("task", "brackets")
@dataclass(frozen=True)
class Brackets(Task):
    """Level l: `LENGTHS[l]` brackets of `KINDS[l]` kinds, the beginning of a balanced word that lacks `MISSING[l]`.

    Credit: share of positions right. At level 0 one of three brackets and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "brackets"
    alphabet: ClassVar[str] = CLOSING
    thought_alphabet: ClassVar[str] = CLOSING + NOTHING + " "

    def legal_characters(self, level: int) -> str:
        """The level's closing brackets."""
        return CLOSING[: KINDS[level]]

    def answer_limit(self, level: int) -> int:
        """The closing brackets that are missing."""
        return MISSING[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """A walk that opens or closes by a fair coin wherever both leave the end within reach."""
        kinds, text, owed = OPENING[: KINDS[level]], "", ""
        for left in range(LENGTHS[level] - 1, -1, -1):
            to_go = MISSING[level] - len(owed)
            may_open, may_close = abs(to_go - 1) <= left, owed != "" and abs(to_go + 1) <= left
            if may_open and not (may_close and rng.random() < 0.5):
                text += rng.choice(kinds)
                owed = CLOSER[text[-1]] + owed
            else:
                text += owed[0]
                owed = owed[1:]
        return f"brackets {text}", owed, {"text": text}

    def solution(self, problem: Problem) -> str:
        """`) ]) ) })`: what is missing after each bracket, `-` for nothing; the last step is the answer."""
        return " ".join([owed or NOTHING for owed in owed_after_each(problem.meta["text"])])

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of positions right."""
        return position_credit(answer, problem.answer)
