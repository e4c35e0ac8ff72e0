"""REINFORCE with a choice of baseline (Williams 1992)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import PolicyGradient
from rlpt.registry import register


@register("algorithm", "reinforce")
@dataclass(frozen=True)
class Reinforce(PolicyGradient):
    """L = -mean A log p: right for samples of the current weights only, unless `truncate` is on.

    `baseline`: none (A = r), batch (minus the mean of all trajectories of the same role in the call), group (minus the
    mean of the peers), leave_one_out (minus the mean of the other peers; unbiased).
    """

    baseline: Literal["none", "batch", "group", "leave_one_out"] = "group"

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        if self.baseline == "none":
            estimators.require_finite(outcomes.rewards)
            return outcomes.rewards.copy()
        if self.baseline == "leave_one_out":
            return estimators.leave_one_out(outcomes.rewards, outcomes.peers)
        by_role = self.baseline == "batch"
        sets = np.unique(np.asarray(outcomes.roles), return_inverse=True)[1] if by_role else outcomes.peers
        return estimators.group_mean_baseline(outcomes.rewards, sets)
