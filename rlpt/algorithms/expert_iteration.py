"""Expert iteration: imitate what came out right, and nothing else (Anthony et al. 1705.08439; rejection sampling in
STaR, 2203.14465, and ReST, 2308.08998)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Algorithm, Baselines, LossTerms, Outcomes, masked_sum, policy_tensors
from rlpt.algorithms.functional import weighted_log_likelihood
from rlpt.batch import Batch, Scores
from rlpt.registry import register


@register("algorithm", "expert_iteration")
@dataclass(frozen=True)
class ExpertIteration(Algorithm):
    """L = -mean of A log p over tokens with A != 0: A is 1 for winners, rewards of at least `threshold`, and 0 for the
    rest. With `best_only`, of each set of peers only the best winner counts (ties: the first).

    Losers add nothing to the divisor either, so that rare winners weigh as much as frequent ones; a step without
    winners has a gradient of exactly 0. There is no importance weight: what is imitated may come from a search, or from
    old weights. Equal rewards are no silence here: a set of winners only is imitated too.
    """

    threshold: float = 1.0
    best_only: bool = False

    @property
    def is_token_local(self) -> bool:
        return True

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        mask = batch.loss_mask
        advantages, _ = policy_tensors(batch, type(self).__name__)
        metrics = {
            "entropy": masked_sum(scores.entropy.detach(), mask),
            "winners": (advantages != 0).sum().to(scores.logprobs.dtype),
        }
        return LossTerms(-masked_sum(weighted_log_likelihood(scores.logprobs, advantages), mask), metrics)

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        rewards = outcomes.rewards
        estimators.require_finite(rewards)
        won = rewards >= self.threshold
        if self.best_only:
            order = np.lexsort((np.arange(len(rewards)), -rewards, outcomes.peers))
            best = order[np.unique(outcomes.peers[order], return_index=True)[1]]
            won &= np.isin(np.arange(len(rewards)), best)
        return won.astype(np.float64)

    def count(self, batch: Batch) -> float:
        """Winners' tokens."""
        assert batch.advantages is not None, f"{type(self).__name__}: the batch has no advantages"
        return float((batch.loss_mask & (torch.where(batch.loss_mask, batch.advantages, 0) != 0)).sum())
