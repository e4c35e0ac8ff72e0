"""REINFORCE++, with and without its baseline (Hu et al. 2501.03262)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms import token_credit
from rlpt.algorithms.base import Baselines, Outcomes, SumOverRanks
from rlpt.algorithms.functional import KLEstimator
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient
from rlpt.registry import register
from rlpt.types import Trajectory


@register("algorithm", "reinforce_plus_plus")
@dataclass(frozen=True)
class ReinforcePlusPlus(ClippedPolicyGradient):
    """Clipped surrogate, A_t = the return to go from token t, less a baseline, whitened over all tokens of all ranks;
    the KL is a penalty k1 at each token (eq. 8 to 10), off by default: a frozen copy of random weights is noise.

    `baseline`: batch (the mean of the play's rewards; the whitening takes it off in any case) or group (the peers'
    mean: REINFORCE++-baseline, for which the paper moves the KL into the loss, as k2; from memory).
    """

    kl_estimator: KLEstimator = "k1"
    kl_in: Literal["loss", "reward"] = "reward"
    baseline: Literal["batch", "group"] = "batch"

    @property
    def needs_silent(self) -> bool:
        return True  # a trajectory without an advantage of its own gets some of its tokens' from the whitening

    def reward(self, trajectory: Trajectory) -> float:
        return trajectory.reward  # the KL falls on single tokens, in `credit`

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        sets = outcomes.peers if self.baseline == "group" else np.zeros_like(outcomes.peers)
        return estimators.group_mean_baseline(outcomes.rewards, sets)

    def credit(self, trajectories: Sequence[Trajectory], total: SumOverRanks) -> None:
        """Reads `advantage` as `advantages` gave it."""
        advantages = []
        for trajectory in trajectories:
            rewards = token_credit.action_rewards(trajectory) - self.action_penalties(trajectory)
            baseline = trajectory.reward - trajectory.advantage
            advantages.append(estimators.returns_to_go(rewards) - baseline)
        token_credit.set_whitened(trajectories, advantages, total)
