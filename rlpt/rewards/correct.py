"""The verifier's credit for the role's answer."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.registry import register
from rlpt.types import Episode, Problem, Trajectory


@register("reward", "correct")
@dataclass(frozen=True)
class Correct:
    """`outcome[role]` in [0, 1], and `exact_bonus` on top when it is exactly 1. With `exact_only`, whatever is not
    exactly 1 counts 0: the outcome reward of a plain checker."""

    exact_bonus: float = 0.0
    exact_only: bool = False

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float:
        """Raises KeyError where the episode has no outcome for the role."""
        outcome = episode.outcome[trajectory.role]
        if outcome == 1.0:
            return outcome + self.exact_bonus
        return 0.0 if self.exact_only else outcome
