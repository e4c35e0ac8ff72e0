"""The Game contract: seats that move in turn. As a Task, a problem is a position and its answer the best move.

A game fills in `opening` (the position before the first move, of a keyed game), `apply`, `player`, `prompt`,
`legal_moves`, `returns`, `values` (what each move is worth, exactly) and `draw` (a position that a problem asks about).
Positions are never changed, chance is keyed by the game, and moves are short texts. Self-play and search use the
moves; `sample`, `verify` and `solution` ask for the best move in a position that an exact search can judge.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlpt.tasks.base import DIGITS, Task
from rlpt.types import Problem

OVER = -1  # the player of a position in which the game is over


class TooLargeError(ValueError):
    """A position that lies too far from the end of the game to be judged exactly."""


@dataclass(frozen=True)
class GameState:
    """A position: what `moves` led to from the opening of game (`seed`, `level`)."""

    moves: tuple[str, ...]
    seed: int  # keys the opening and what chance does
    level: int  # which size of the game it is
    inner: Any = field(compare=False, repr=False)  # the game's own, a function of the rest and never changed


def value_text(value: float) -> str:
    """A value as worked traces write it: three significant digits."""
    return f"{value:.3g}"


@dataclass(frozen=True)
class Game(Task):
    """Seats, moves and returns."""

    kind: ClassVar[str] = "game"
    unique_answer: ClassVar[bool] = False
    thought_alphabet: ClassVar[str] = DIGITS + "+-=. "
    num_players: ClassVar[int] = 2
    zero_sum: ClassVar[bool] = True  # whether the returns of a finished game add up to 0

    @abstractmethod
    def opening(self, seed: int, level: int) -> GameState:
        """The position before the first move of game `seed`; chance has moved where it moves first."""

    @abstractmethod
    def draw(self, rng: random.Random, level: int) -> GameState:
        """A position of which `values` are exact, for a problem of `level`."""

    @abstractmethod
    def apply(self, state: GameState, move: str) -> GameState:
        """After a legal move and what chance does then. Raises ValueError that lists the legal ones for another."""

    @abstractmethod
    def player(self, state: GameState) -> int:
        """The seat to move, from 0; `OVER` at the end."""

    @abstractmethod
    def prompt(self, state: GameState) -> str:
        """What the seat to move sees, as the text of a problem's prompt: nothing that is hidden from that seat."""

    @abstractmethod
    def legal_moves(self, state: GameState) -> Sequence[str]:
        """In a fixed order; empty at the end."""

    @abstractmethod
    def returns(self, state: GameState) -> Sequence[float]:
        """Each seat's return, in [-1, 1]; zeros before the end."""

    @abstractmethod
    def values(self, state: GameState) -> Mapping[str, float]:
        """What each legal move is worth to the seat that moves, in [-1, 1], when all play on as well as they can;
        equal worths are equal numbers. Raises `TooLargeError` where an exact search would not end in time."""

    def same(self, state: GameState) -> Hashable | None:
        """Equal for positions that go on alike, whatever led to them; None where a game does not say so. Only for games
        in which no position can come back."""
        return None

    def illegal(self, state: GameState, move: str) -> ValueError:
        """The error of `apply`."""
        legal = ", ".join(self.legal_moves(state)) or "none, the game is over"
        return ValueError(f"{self.name}: illegal move {move[:40]!a}; legal: {legal}")

    def start(self, problem: Problem) -> GameState:
        """The position that the problem asks about."""
        state = self.opening(problem.meta["key"], problem.level)
        for move in problem.meta["moves"]:
            state = self.apply(state, move)
        return state

    def generate(self, rng: random.Random, level: int) -> tuple[str, str, Mapping[str, Any]]:
        """A drawn position and one of its best moves, any of them with the same chance."""
        state = self.draw(rng, level)
        values = dict(self.values(state))
        best = max(values.values())
        answer = rng.choice([move for move, value in values.items() if value == best])
        return self.prompt(state), answer, {"key": state.seed, "moves": list(state.moves), "values": values}

    def grade(self, problem: Problem, answer: str) -> float:
        """1 for a best move; 0 for an illegal one; else 0.2, and up to 0.6 more by its value between worst and best."""
        values = problem.meta["values"]
        if answer not in values:
            return 0.0
        best, worst = max(values.values()), min(values.values())
        if values[answer] == best:
            return 1.0
        return 0.2 + 0.6 * (values[answer] - worst) / (best - worst)

    def solution(self, problem: Problem) -> str:
        """`a1=0 b2=1 c1=-1`: the value of each legal move."""
        return " ".join(f"{move}={value_text(value)}" for move, value in problem.meta["values"].items())

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right where it gives a legal move its value, once and in any order."""
        open_steps = {f"{move}={value_text(value)}" for move, value in problem.meta["values"].items()}
        scores = []
        for step in trace.split():
            scores.append(float(step in open_steps))
            open_steps.discard(step)
        return scores
