"""REINFORCE with a choice of baseline (Williams 1992)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpt.algorithms import functional
from rlpt.algorithms.base import Algorithm, LossTerms, masked_sum, policy_tensors
from rlpt.batch import Batch, Scores
from rlpt.registry import register


@register("algorithm", "reinforce")
@dataclass(frozen=True)
class Reinforce(Algorithm):
    """L = -sum A log p - entropy_bonus * sum H. Right for samples of the current weights only: no ratio corrects.

    `baseline`: none (A = r), batch (minus the mean of all trajectories of the same role in the call), group (minus the
    mean of the peers), leave_one_out (minus the mean of the other peers; unbiased).
    """

    baseline: Literal["none", "batch", "group", "leave_one_out"] = "group"
    entropy_bonus: float = 0.0

    def __post_init__(self) -> None:
        if self.entropy_bonus < 0:
            raise ValueError(f"entropy_bonus={self.entropy_bonus}: must be 0 or more")

    @property
    def needs_silent(self) -> bool:
        return self.entropy_bonus > 0

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        mask = batch.loss_mask
        advantages, behavior = policy_tensors(batch, "reinforce")
        total = -masked_sum(advantages * scores.logprobs, mask) - self.entropy_bonus * masked_sum(scores.entropy, mask)
        drift = functional.log_ratio(scores.logprobs.detach(), behavior, mask)
        metrics = {
            "entropy": masked_sum(scores.entropy.detach(), mask),
            "advantage_abs": masked_sum(advantages.abs(), mask),
            "behavior_kl": masked_sum(functional.kl_estimate(drift, "k3"), mask),
        }
        return LossTerms(total, metrics)

    def advantages(self, rewards: np.ndarray, peers: np.ndarray, roles: list[str]) -> np.ndarray:
        if self.baseline == "none":
            if not np.isfinite(rewards).all():
                raise ValueError("rewards must be finite")
            return rewards.copy()
        if self.baseline == "leave_one_out":
            return functional.leave_one_out(rewards, peers)
        sets = np.unique(roles, return_inverse=True)[1] if self.baseline == "batch" else peers
        return functional.group_mean_baseline(rewards, sets)
