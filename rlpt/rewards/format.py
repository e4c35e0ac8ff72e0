"""Whether what the policy wrote has the shape that was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.registry import register
from rlpt.types import Episode, Problem, Trajectory


@register("reward", "format")
@dataclass(frozen=True)
class Format:
    """The share of the role's turns that were well formed (an answer: 1 or 0); 0 where the episode was cut short."""

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float:
        """What is well formed, the form of self-play says."""
        return 0.0 if trajectory.truncated else trajectory.well_formed
