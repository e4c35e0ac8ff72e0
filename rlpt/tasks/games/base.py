"""The Game contract: seats that move in turn. As a Task, a problem is a position and its answer the best move.

A game fills in `opening` (the position before the first move, of a keyed game), `apply`, `player`, `prompt`,
`legal_moves`, `returns` and `values` (what each move is worth, exactly). Positions are immutable, chance is keyed by
the problem, and moves are short texts. Self-play and search use the moves; `sample`, `verify` and `solution` ask for
the best move in a position so late in a game that an exact search can judge it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rlpt.tasks.base import Task
from rlpt.types import Problem

OVER = -1  # the player of a position in which the game is over


@dataclass(frozen=True)
class GameState:
    """A position. `moves` led to it from the opening; `inner` is the game's own, immutable."""

    moves: tuple[str, ...]
    inner: Any
    seed: int = 0  # keys what chance does


@dataclass(frozen=True)
class Game(Task):
    """Seats, moves and returns."""

    kind: ClassVar[str] = "game"
    unique_answer: ClassVar[bool] = False
    num_players: ClassVar[int] = 2

    @abstractmethod
    def start(self, problem: Problem) -> GameState:
        """The position that the problem asks about."""

    @abstractmethod
    def opening(self, seed: int) -> GameState:
        """The position before the first move of game `seed`, for self-play; chance has moved where it moves first."""

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
        """Each seat's return, in [-1, 1] and zero-sum where the game is; zeros before the end."""

    @abstractmethod
    def values(self, state: GameState) -> Mapping[str, float]:
        """What each legal move is worth to the seat that moves, in [-1, 1], when all play on as well as they can."""

    def grade(self, problem: Problem, answer: str) -> float:
        """1 for a best move; 0 for an illegal one; else 0.2, and up to 0.6 more by its value between worst and best."""
        values = self.values(self.start(problem))
        if answer not in values:
            return 0.0
        best, worst = max(values.values()), min(values.values())
        if values[answer] == best:
            return 1.0
        return 0.2 + 0.6 * (values[answer] - worst) / (best - worst)
