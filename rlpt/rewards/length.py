"""Rewards of how long an answer is, in action tokens of the trajectory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.types import Episode, Problem, Trajectory


@register("reward", "cosine_length")
@dataclass(frozen=True)
class CosineLength:
    """Correctness and length in one: half a cosine from `right_short` to `right_long` for right answers, from
    `wrong_short` to `wrong_long` for wrong ones, as the length goes from 0 to `limit`; `exceeded` at the limit and for
    what was cut short. Right answers do best when short, wrong ones when long: hard problems draw longer thoughts.

    Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv:2502.03373). Their shape is
    `end + (start - end) (1 + cos(pi l / L)) / 2`. The default ends are from memory and from code that follows the
    paper, not from its text. It holds the outcome: use it instead of `correct`.
    """

    limit: int  # L, tokens
    right_short: float = 2.0
    right_long: float = 1.0
    wrong_short: float = -10.0
    wrong_long: float = 0.0
    exceeded: float = -10.0

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ConfigError(f"limit={self.limit}: must be at least 1 token")

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float:
        """Between the least and the greatest of its ends. Raises KeyError where the role has no outcome."""
        is_right = episode.outcome_of(trajectory) == 1.0
        length = _length(trajectory)
        if trajectory.truncated or length >= self.limit:
            return self.exceeded
        start, end = (self.right_short, self.right_long) if is_right else (self.wrong_short, self.wrong_long)
        return end + (start - end) * (1 + math.cos(math.pi * length / self.limit)) / 2


@register("reward", "overlong")
@dataclass(frozen=True)
class Overlong:
    """0 up to `limit - buffer` tokens, from there in a straight line to -1 at `limit`, and -1 beyond it.

    Soft overlong punishment of DAPO (Yu et al. 2025, arXiv:2503.14476, equation 13; L_max: `limit`, L_cache: `buffer`).
    """

    limit: int  # tokens
    buffer: int  # tokens

    def __post_init__(self) -> None:
        if not 1 <= self.buffer <= self.limit:
            raise ConfigError(f"limit={self.limit}, buffer={self.buffer}: need 1 <= buffer <= limit")

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float:
        """In [-1, 0]."""
        return -min(max(_length(trajectory) - (self.limit - self.buffer), 0) / self.buffer, 1.0)


def _length(trajectory: Trajectory) -> int:
    return int(trajectory.action_mask.sum())
