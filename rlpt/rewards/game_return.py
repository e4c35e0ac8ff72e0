"""What a game returned to the role's seat."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.registry import register
from rlpt.types import Episode, Problem, Trajectory


@register("reward", "game_return")
@dataclass(frozen=True)
class GameReturn:
    """2 outcome[role] - 1: in [-1, 1], 1 for a win, 0 for a draw. In a zero-sum game the seats' add up to 0; a value
    head that is trained on it says what a search needs of it."""

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float:
        """Raises KeyError where the episode has no outcome for the role."""
        return 2 * episode.outcome[trajectory.role] - 1
