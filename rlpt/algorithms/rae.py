"""Role-conditioned advantage estimation (SPIRAL: Liu, Guertler et al. 2506.24119)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient, Normalizer, require
from rlpt.registry import register


@register("algorithm", "rae")
@dataclass(frozen=True)
class RAE(ClippedPolicyGradient):
    """A = r - b[task, role], a running mean with `decay` that starts at 0 and is read before it takes r in, as the
    paper's code does; PPO's clip, a sum over each trajectory's tokens, no KL.

    For games, where one problem is played once: it needs no peers. In a zero-sum game the mean over both roles is 0
    whatever happens, so only a baseline of each role says which play was better than that role's lot.
    """

    normalizer: Normalizer = "constant"
    decay: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "decay", 0 <= self.decay < 1, "at least 0 and below 1")

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        keys = [f"{task}/{role}" for task, role in zip(outcomes.tasks, outcomes.roles, strict=True)]
        return estimators.running_baseline(outcomes.rewards, keys, baselines, self.decay)
