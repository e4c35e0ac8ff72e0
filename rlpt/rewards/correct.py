"""The verifier's credit for the role's answer."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.tasks.base import keyed_hash
from rlpt.types import Episode, Problem, Trajectory


@register("reward", "correct")
@dataclass(frozen=True)
class Correct:
    """The verifier's score in [0, 1], and `exact_bonus` on top when it is exactly 1. With `exact_only`, whatever is not
    exactly 1 counts 0: the outcome reward of a plain checker. With `role`, other roles get 0.

    `flip` is for experiments with a verifier that errs: with this probability a right answer counts 0 and any other 1.
    Whether it does is keyed by the problem's seed and the trajectory's tokens, so the same text always gets the same
    verdict.
    """

    exact_bonus: float = 0.0
    exact_only: bool = False
    flip: float = 0.0
    role: str = ""  # "": every role

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"flip={self.flip}: must be between 0 and 1")

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float:
        """Raises KeyError where the episode has no outcome for the role."""
        if self.role and trajectory.role != self.role:
            return 0.0
        outcome = episode.outcome_of(trajectory)
        if self.flip and keyed_hash("flip", problem.seed, *trajectory.token_ids.tolist()) < self.flip * 2.0**64:
            outcome = float(outcome != 1.0)
        if outcome == 1.0:
            return outcome + self.exact_bonus
        return 0.0 if self.exact_only else outcome
