"""Many games at once: at every turn, each kind of mover is asked once for all the games in which it is to move.

A mover turns positions into turns: the policy, the policy with a search, a past self, a scripted bot. What a turn was
written from and with stays with it, so that a seat's turns make a trajectory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from rlpt.search.tree import Tree
from rlpt.tasks.base import keyed_hash
from rlpt.tasks.games.base import OVER, Game, GameState

ILLEGAL = ""  # the move of a turn in which something else was written


@dataclass(frozen=True)
class Position:
    """A game at a turn. `key` (63 bits) names the turn's noise."""

    game: Game
    state: GameState
    key: int
    before: tuple[int, ...] = ()  # ids of the seat's earlier turns, where they are read as well


@dataclass(frozen=True)
class Turn:
    """What a mover did. The arrays hold one entry a written token; a scripted mover writes none."""

    move: str  # `ILLEGAL`: no legal move
    prompt: tuple[int, ...] = ()  # ids that it was written after
    before: int = 0  # how many of these are the seat's earlier turns
    token_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    logprobs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    chosen: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # False: nothing else was possible
    kept_ids: tuple[np.ndarray | None, ...] = ()
    candidates: tuple[np.ndarray | None, ...] = ()  # what a search weighed up, by token; () where none did
    weights: tuple[np.ndarray | None, ...] = ()
    tree: Tree | None = None  # the search, to be looked at
    tokens: int = 0  # that the model read or wrote for it


class Mover(Protocol):
    """Chooses moves of many games at once."""

    def __call__(self, positions: Sequence[Position]) -> list[Turn]:
        """A turn for each position, none of which is the end of its game; each depends on its own position alone."""
        ...


@dataclass
class Match:
    """One game under way between movers, one a seat. Mutable: turns are added."""

    game: Game
    state: GameState
    movers: Sequence[Mover]
    key: int
    max_moves: int = 0  # after which it is cut short; 0: no limit
    transcript: bool = False  # whether a seat reads its earlier turns
    turns: list[tuple[int, Turn]] = field(default_factory=list)  # (seat, turn)
    forfeited: int = OVER  # the seat that wrote no legal move

    @property
    def is_cut(self) -> bool:
        """Whether it was ended by its length."""
        return 0 < self.max_moves <= len(self.turns) and self._goes_on

    @property
    def is_over(self) -> bool:
        """Whether nobody moves any more."""
        return self.is_cut or not self._goes_on

    @property
    def _goes_on(self) -> bool:
        return self.forfeited == OVER and self.game.player(self.state) != OVER

    @property
    def returns(self) -> tuple[float, ...]:
        """Each seat's, in [-1, 1], once it is over: zeros where it was cut short; who wrote no legal move has lost it
        to the others, who share what it lost."""
        if self.forfeited == OVER:
            return tuple(self.game.returns(self.state))
        seats = self.game.num_players
        return tuple(-1.0 if seat == self.forfeited else 1.0 / max(1, seats - 1) for seat in range(seats))

    def position(self) -> Position:
        """What the seat to move is asked."""
        seat = self.game.player(self.state)
        last = next((turn for mover, turn in reversed(self.turns) if mover == seat), None) if self.transcript else None
        before = () if last is None else (*last.prompt, *last.token_ids.tolist())
        return Position(self.game, self.state, keyed_hash("turn", self.key, len(self.turns)) >> 1, before)

    def take(self, turn: Turn) -> None:
        """Plays it."""
        seat = self.game.player(self.state)
        self.turns.append((seat, turn))
        if turn.move == ILLEGAL:
            self.forfeited = seat
        else:
            self.state = self.game.apply(self.state, turn.move)


def play_matches(matches: Sequence[Match]) -> None:
    """Plays all of them to their ends; each is as it would be alone."""
    while live := [match for match in matches if not match.is_over]:
        asked: dict[int, tuple[Mover, list[Match]]] = {}
        for match in live:
            mover = match.movers[match.game.player(match.state)]
            asked.setdefault(id(mover), (mover, []))[1].append(match)
        for mover, group in asked.values():
            for match, turn in zip(group, mover([match.position() for match in group]), strict=True):
                match.take(turn)
