"""Run a deterministic finite automaton: `automaton A:BC B:AA C:CB 01?10?` -> `AC`.

`A:BC` says that state A goes to B on a 0 and to C on a 1; a run begins in A, and each `?` asks for the state there.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.registry import register
from rlpt.tasks.base import DIGITS, Task, position_credit
from rlpt.types import Problem

STATE_NAMES = "ABCDEFGH"
STATES = (3, 3, 4, 4, 5, 5, 6, 6, 7, 8)  # by level
SYMBOLS = (2, 2, 2, 2, 2, 2, 3, 3, 3, 3)  # that inputs are written with, by level
INPUT_LENGTHS = (1, 3, 5, 7, 10, 13, 16, 20, 25, 30)  # by level
ASKED = (1, 2, 2, 3, 3, 4, 4, 5, 6, 7)  # states asked for, by level


def run(table: Mapping[str, str], text: str) -> str:
    """The states after each symbol of `text`, from state A; `table[state]` holds the next state by symbol."""
    states = "A"
    for symbol in text:
        states += table[states[-1]][int(symbol)]
    return states[1:]


@register("task", "automaton")
@dataclass(frozen=True)
class Automaton(Task):
    """Level l: `STATES[l]` states, an input of `INPUT_LENGTHS[l]` out of `SYMBOLS[l]` symbols, `ASKED[l]` questions.

    Credit: share of asked states right. At level 0 one of three states and the end mark are guessed: 1 in 16.
    """

    name: ClassVar[str] = "automaton"
    alphabet: ClassVar[str] = STATE_NAMES
    thought_alphabet: ClassVar[str] = STATE_NAMES + DIGITS[: max(SYMBOLS)] + " "

    def legal_characters(self, level: int) -> str:
        """The level's states."""
        return STATE_NAMES[: STATES[level]]

    def answer_limit(self, level: int) -> int:
        """A state a question."""
        return ASKED[level]

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """Table and input uniform; the last question is at the end of the input, the others anywhere before."""
        names, symbols = self.legal_characters(level), DIGITS[: SYMBOLS[level]]
        table = {state: "".join(rng.choices(names, k=len(symbols))) for state in names}
        text = "".join(rng.choices(symbols, k=INPUT_LENGTHS[level]))
        states = run(table, text)
        asked = {*rng.sample(range(len(text) - 1), ASKED[level] - 1), len(text) - 1}
        marked = "".join([symbol + "?" * (i in asked) for i, symbol in enumerate(text)])
        answer = "".join([states[i] for i in sorted(asked)])
        rows = " ".join([f"{state}:{following}" for state, following in table.items()])
        return f"automaton {rows} {marked}", answer, {"text": text, "states": states}

    def solution(self, problem: Problem) -> str:
        """`A0B B1A A1C C0C`: state, symbol, next state."""
        text, states = problem.meta["text"], problem.meta["states"]
        return " ".join([a + symbol + b for a, symbol, b in zip("A" + states, text, states)])

    def grade(self, problem: Problem, answer: str) -> float:
        """Share of asked states right."""
        return position_credit(answer, problem.answer)
