"""Maximum-likelihood reinforcement learning (Tajwar et al. 2602.02710)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import Normalizer, PolicyGradient
from rlpt.registry import register


@register("algorithm", "maxrl")
@dataclass(frozen=True)
class MaxRL(PolicyGradient):
    """L = -mean over trajectories of A log p(trajectory), A = (r - mean) / mean over the peers: it climbs the log of
    the success rate, where hard problems weigh more. Rewards must not be negative."""

    normalizer: Normalizer = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl_in == "reward":
            raise ValueError(
                "kl_in=reward: maxrl divides by the mean reward, which a penalty can make negative; use loss"
            )

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return estimators.maximum_likelihood(outcomes.rewards, outcomes.peers)
