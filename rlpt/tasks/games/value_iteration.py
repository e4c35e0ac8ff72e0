"""Value iteration over the positions of an OpenSpiel game in which play can return to an earlier position.

All positions that can be reached are gathered once, told apart by their text; then each sweep gives a decision the best
of its successors' values and a chance node their mean, until no value changes by more than `TOLERANCE` (Shapley, 1953).
For sequential two-player zero-sum games with perfect information that end with probability 1. A game's limit on its
length is not part of a position's text, so it does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from rlpt.tasks.games.base import TooLargeError
from rlpt.tasks.games.library import load_game

TOLERANCE = 1e-13  # of values on the game's scale
MOST_SWEEPS = 100_000


class Positions:
    """The positions of a game and what each is worth to seat 0."""

    def __init__(self, game: Any, limit: int) -> None:
        """Gathers and solves. Raises `TooLargeError` where there are more than `limit` positions."""
        self.at: dict[str, int] = {}
        self._limit = limit
        kinds: list[float] = []  # 1: seat 0 chooses, -1: seat 1, 0: chance
        starts: list[int] = []
        successors: list[int] = []
        chances: list[float] = []
        fixed: dict[int, float] = {}
        todo = [game.new_initial_state()]
        self._index(todo[0], [])
        for state in todo:  # grows
            if state.is_terminal():
                fixed[len(kinds)] = state.player_return(0)
                outcomes = [(None, 1.0)]
            elif state.is_chance_node():
                outcomes = state.chance_outcomes()
            else:
                outcomes = [(action, 1.0) for action in state.legal_actions()]
            starts.append(len(successors))
            for action, chance in outcomes:
                successors.append(len(kinds) if action is None else self._index(state.child(action), todo))
                chances.append(chance)
            kinds.append({0: 1.0, 1: -1.0}.get(state.current_player(), 0.0))
        self.worth = self._solve(np.array(kinds), np.array(starts), np.array(successors), np.array(chances), fixed)

    def _index(self, state: Any, todo: list[Any]) -> int:
        """The position's number; new ones are added to `todo`."""
        text = str(state)
        if text not in self.at:
            if len(self.at) >= self._limit:
                raise TooLargeError(f"no exact value within {self._limit} positions")
            self.at[text] = len(self.at)
            todo.append(state)
        return self.at[text]

    def _solve(
        self,
        kinds: np.ndarray,  # [positions] float64
        starts: np.ndarray,  # [positions] int64: where its successors begin
        successors: np.ndarray,  # [edges] int64
        chances: np.ndarray,  # [edges] float64
        fixed: Mapping[int, float],
    ) -> np.ndarray:  # [positions] float64
        sign = np.repeat(np.where(kinds < 0, -1.0, 1.0), np.diff(starts, append=len(successors)))
        worth = np.zeros(len(kinds))
        ends = np.array(sorted(fixed))
        worth[ends] = [fixed[end] for end in ends]
        for _ in range(MOST_SWEEPS):
            ahead = worth[successors]
            chosen = np.where(kinds < 0, -1.0, 1.0) * np.maximum.reduceat(sign * ahead, starts)
            after = np.where(kinds == 0, np.add.reduceat(chances * ahead, starts), chosen)
            after[ends] = worth[ends]
            change = np.abs(after - worth).max()
            worth = after
            if change <= TOLERANCE:
                return worth
        raise AssertionError(f"value iteration still changes by {change} after {MOST_SWEEPS} sweeps")


@lru_cache(maxsize=32)
def _whole_game(game: str, limit: int) -> Positions:
    return Positions(load_game(game), limit)


def value_iteration(state: Any, limit: int) -> tuple[Mapping[int, float], int]:
    """(value of each legal action, positions of the game). Raises `TooLargeError` beyond `limit` positions."""
    positions = _whole_game(str(state.get_game()), limit)
    sign = 1.0 if state.current_player() == 0 else -1.0
    values = {
        action: sign * float(positions.worth[positions.at[str(state.child(action))]])
        for action in state.legal_actions()
    }
    return values, len(positions.at)
