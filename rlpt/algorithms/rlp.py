"""The estimator of RLP, reinforcement as a pretraining objective (Hatamizadeh et al. 2510.01265)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient, Normalizer
from rlpt.registry import register


@register("algorithm", "rlp")
@dataclass(frozen=True)
class RLP(ClippedPolicyGradient):
    """Clipped surrogate, A = G / (G - 1) (r - mean over the G thoughts), no std, mean over each thought's tokens first.

    The reward (information gain) is the rubric's business, and that only thoughts are actions is the form of play's.
    The paper doesn't print its clip range: 0.2 is PPO's.
    """

    normalizer: Normalizer = "sequence"

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return estimators.leave_one_out(outcomes.rewards, outcomes.peers)
