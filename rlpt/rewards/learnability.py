"""A proposer's reward: how much there is to learn from the problem that it made."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.types import Episode, Problem, Trajectory

SOLVE_RATE = "solve_rate"  # key of Episode.outcome: the share of solvers that were right


@register("reward", "learnability")
@dataclass(frozen=True)
class Learnability:
    """1 - r for a problem that solvers solve at the mean rate r, 0 < r < 1; `useless` where r is 0 or 1. Absolute Zero
    (Zhao et al. 2025, arXiv:2505.03335, section 3).

    With `peak`, the most, 1, is earned at that rate: 1 - |r - peak| / max(peak, 1 - peak); at 0 it is the same formula.
    (Peaked at a half it did not help a language model's proposer: 2510.27072.)

    `malformed` where the proposer's text does not have the shape asked for. The paper's formula has 0 for `useless`;
    its code -0.5, and -1 for `malformed`; there an invalid problem in the right shape counts as solved at the rate 1.
    Other roles get 0.
    """

    role: str = "proposer"
    useless: float = 0.0
    malformed: float = 0.0
    peak: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.peak < 1:
            raise ConfigError(f"peak={self.peak}: must be a solve rate, at least 0 and below 1")

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float:
        """Raises KeyError where a well-formed proposal has no `outcome["solve_rate"]`."""
        if trajectory.role != self.role:
            return 0.0
        if trajectory.truncated or trajectory.well_formed < 1:
            return self.malformed
        rate = episode.outcome[SOLVE_RATE]
        if not 0 < rate < 1:
            return self.useless
        return 1 - abs(rate - self.peak) / max(self.peak, 1 - self.peak)
