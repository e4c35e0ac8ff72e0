"""The verifier's credit for the role's answer."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.registry import register
from rlpt.types import Episode, Problem, Trajectory


@register("reward", "correct")
@dataclass(frozen=True)
class Correct:
    """`outcome[role]` in [0, 1], and `exact_bonus` on top when it is exactly 1."""

    exact_bonus: float = 0.0

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float:
        """Raises KeyError where the episode has no outcome for the role."""
        outcome = episode.outcome[trajectory.role]
        return outcome + self.exact_bonus if outcome == 1.0 else outcome
