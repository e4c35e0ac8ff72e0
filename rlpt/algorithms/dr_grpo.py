"""GRPO done right: without its two biases (Liu et al. 2503.20783)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient, Normalizer
from rlpt.registry import register


@register("algorithm", "dr_grpo")
@dataclass(frozen=True)
class DrGRPO(ClippedPolicyGradient):
    """GRPO with A = r - mean over the peers (no division: no weight by difficulty) and a sum over each trajectory's
    tokens (no division: no weight by length). The paper's code divides the sum by the most tokens that an answer may
    have (from memory): set `constant` to that to keep losses of a usual size."""

    normalizer: Normalizer = "constant"

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return estimators.group_mean_baseline(outcomes.rewards, outcomes.peers)
