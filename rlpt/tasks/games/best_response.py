"""The exact best response to a uniformly random opponent, in OpenSpiel games with hidden information.

For a seat at an information state I, the histories h in I weigh as chance and the opponent reach them (the seat's own
moves lead there alike), and

    value(I, a) = sum over h in I of weight(h) * value(h, a) / sum of weights,

where the seat goes on with the best action at each later information state (perfect recall makes this well founded).
The opponent takes each legal move with the same chance at all its decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from rlpt.tasks.games.base import TooLargeError
from rlpt.tasks.games.library import load_game


class BestResponse:
    """One seat's best response in a whole game; counts the histories that it looks at."""

    def __init__(self, game: Any, player: int, limit: int) -> None:
        """Walks the game's tree. Raises `TooLargeError` where it has more than `limit` histories."""
        self.player, self.limit, self.histories = player, limit, 0
        self.members: dict[str, list[tuple[Any, float]]] = {}  # information state -> its (history, weight)s
        self.solved: dict[str, tuple[dict[int, float], int]] = {}
        self._collect(game.new_initial_state(), 1.0)

    def _collect(self, state: Any, weight: float) -> None:
        self.histories += 1
        if self.histories > self.limit:
            raise TooLargeError(f"no exact value within {self.limit} histories")
        if state.is_terminal():
            return
        if state.current_player() == self.player:
            self.members.setdefault(state.information_state_string(self.player), []).append((state, weight))
            outcomes = [(action, 1.0) for action in state.legal_actions()]
        else:
            outcomes = _others(state)
        for action, chance in outcomes:
            self._collect(state.child(action), weight * chance)

    def values(self, information: str) -> tuple[Mapping[int, float], int]:
        """(value of each action at an information state, histories that follow from there)."""
        totals, count = self._totals(information)
        weight = sum(weight for _, weight in self.members[information])
        return {action: total / weight for action, total in totals.items()}, count

    def _totals(self, information: str) -> tuple[dict[int, float], int]:
        """Values times the weight of the information state."""
        if information not in self.solved:
            members, totals, count = self.members[information], {}, 0
            for action in members[0][0].legal_actions():
                total = 0.0
                later: set[str] = set()
                for state, weight in members:
                    gained, seen = self._follow(state.child(action), weight, later)
                    total, count = total + gained, count + seen
                for reached in sorted(later):
                    best, seen = self._totals(reached)
                    total, count = total + max(best.values()), count + seen
                totals[action] = total
            self.solved[information] = totals, count
        return self.solved[information]

    def _follow(self, state: Any, weight: float, later: set[str]) -> tuple[float, int]:
        """(weighted return of the ends that come before the seat's next decision, histories seen); the information
        states of those decisions go to `later`."""
        if state.is_terminal():
            return weight * state.player_return(self.player), 1
        if state.current_player() == self.player:
            later.add(state.information_state_string(self.player))
            return 0.0, 1
        total, count = 0.0, 1
        for action, chance in _others(state):
            gained, seen = self._follow(state.child(action), weight * chance, later)
            total, count = total + gained, count + seen
        return total, count


def _others(state: Any) -> list[tuple[int, float]]:
    """What chance or the uniformly random opponent does, with its probability."""
    if state.is_chance_node():
        return state.chance_outcomes()
    actions = state.legal_actions()
    return [(action, 1 / len(actions)) for action in actions]


@lru_cache(maxsize=32)
def _whole_game(game: str, player: int, limit: int) -> BestResponse:
    return BestResponse(load_game(game), player, limit)


def best_response(state: Any, limit: int) -> tuple[Mapping[int, float], int]:
    """(value of each legal action to the seat that moves, given what it sees; histories looked at). Raises
    `TooLargeError` where the whole game has more than `limit` histories."""
    player = state.current_player()
    return _whole_game(str(state.get_game()), player, limit).values(state.information_state_string(player))
