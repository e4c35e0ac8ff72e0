"""Group-relative policy optimisation (Shao et al. 2402.03300)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient, Normalizer
from rlpt.registry import register


@register("algorithm", "grpo")
@dataclass(frozen=True)
class GRPO(ClippedPolicyGradient):
    """Clipped surrogate, A = (r - mean) / std over the peers, mean over each trajectory's tokens first, then over
    trajectories; KL to the reference in the loss by k3 (the paper's eq. 3 and 4, from memory).

    `normalise_std` false leaves out the division. The paper's kl_coefficient is 0.04 (from memory); here the KL is off
    by default: a frozen copy of random weights is noise.
    """

    normalizer: Normalizer = "sequence"
    normalise_std: bool = True

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return estimators.group_normalise(outcomes.rewards, outcomes.peers, divide_by_std=self.normalise_std)
