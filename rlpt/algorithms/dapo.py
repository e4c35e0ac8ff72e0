"""Decoupled clip and dynamic sampling policy optimisation (Yu et al. 2503.14476)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient
from rlpt.registry import register


@register("algorithm", "dapo")
@dataclass(frozen=True)
class DAPO(ClippedPolicyGradient):
    """GRPO with a higher upper clip and the mean over all tokens; no KL.

    Its other two parts live elsewhere: dynamic sampling (groups without signal are left out and played again) is an
    option of the source of episodes, and overlong shaping is a reward.
    """

    clip_high: float = 0.28

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return estimators.group_normalise(outcomes.rewards, outcomes.peers, divide_by_std=True)
