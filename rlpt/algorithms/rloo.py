"""REINFORCE leave-one-out (Kool et al. 2019; Ahmadian et al. 2402.14740)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.functional import KLEstimator
from rlpt.algorithms.policy_gradient import Normalizer, PolicyGradient
from rlpt.registry import register


@register("algorithm", "rloo")
@dataclass(frozen=True)
class RLOO(PolicyGradient):
    """L = -mean over trajectories of A log p(trajectory), A = r - mean reward of the other peers.

    The whole answer is one action in the paper, so log-probs are summed over its tokens, and the KL, where there is
    one, is part of the reward (k1). It is off by default: a frozen copy of random weights is noise.
    """

    normalizer: Normalizer = "constant"
    kl_estimator: KLEstimator = "k1"
    kl_in: Literal["loss", "reward"] = "reward"

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return estimators.leave_one_out(outcomes.rewards, outcomes.peers)
