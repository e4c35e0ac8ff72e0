"""Expectiminimax with alpha-beta cuts on OpenSpiel states: the exact values of all moves of a late position.

The states are OpenSpiel's own (of a sequential two-player zero-sum game with perfect information), and returns are on
the game's scale. Between two chance nodes the cuts are those of Knuth and Moore (1975); below one the window is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlpt.tasks.games.base import TooLargeError


class Search:
    """One search for the seat that moves in a position; counts what it looks at."""

    def __init__(self, player: int, lowest: float, highest: float, limit: int) -> None:
        """`lowest` and `highest` bound the returns; `limit` is the most positions to look at."""
        self.player, self.lowest, self.highest, self.limit = player, lowest, highest, limit
        self.positions = 0

    def value(self, state: Any, alpha: float, beta: float) -> float:
        """What `state` is worth to the seat: exact between `alpha` and `beta`, a bound outside."""
        self.positions += 1
        if self.positions > self.limit:
            raise TooLargeError(f"no exact value within {self.limit} positions")
        if state.is_terminal():
            return state.player_return(self.player)
        if state.is_chance_node():
            return sum(
                chance * self.value(state.child(outcome), self.lowest, self.highest)
                for outcome, chance in state.chance_outcomes()
            )
        if state.current_player() == self.player:
            best = self.lowest
            for action in state.legal_actions():
                best = max(best, self.value(state.child(action), max(alpha, best), beta))
                if best >= beta:
                    break
            return best
        worst = self.highest
        for action in state.legal_actions():
            worst = min(worst, self.value(state.child(action), alpha, min(beta, worst)))
            if worst <= alpha:
                break
        return worst


def expectiminimax(state: Any, limit: int) -> tuple[Mapping[int, float], int]:
    """(value of each legal action, positions looked at). Raises `TooLargeError` beyond `limit` positions."""
    game = state.get_game()
    search = Search(state.current_player(), game.min_utility(), game.max_utility(), limit)
    values = {
        action: search.value(state.child(action), search.lowest, search.highest) for action in state.legal_actions()
    }
    return values, search.positions
