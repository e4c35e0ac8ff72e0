"""Proximal policy optimisation with a value head (Schulman et al. 1707.06347), with RLSP's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms import functional, token_credit
from rlpt.algorithms.base import Baselines, LossTerms, Outcomes, SumOverRanks, masked_sum
from rlpt.algorithms.functional import KLEstimator
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient, Normalizer, require
from rlpt.algorithms.value_figures import explained_variance, value_sums
from rlpt.batch import Batch, Scores
from rlpt.registry import register
from rlpt.types import Trajectory


@register("algorithm", "ppo")
@dataclass(frozen=True)
class PPO(ClippedPolicyGradient):
    """L = clipped surrogate's + value_coefficient * max((V - R)^2, (V clipped to V_old +- value_clip - R)^2) / 2.

    Advantages by GAE over a trajectory's actions (`gamma`, `lam`), `whiten`ed over all actions of all ranks; each
    action's reward is what the rubric placed there, the rest is the last action's, less the KL to the reference
    (k1). Defaults are those of RLSP's runs (Ye et al.; its code): KL 0.05, and the mean over each trajectory's tokens
    first. In its first `critic_warmup` turns only the value loss counts, and only the head learns from it: it settles
    while the rest of the network stays where it is.
    """

    normalizer: Normalizer = "sequence"
    kl_coefficient: float = 0.05
    kl_estimator: KLEstimator = "k1"
    kl_in: Literal["loss", "reward"] = "reward"
    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True
    value_coefficient: float = 1.0
    value_clip: float = 0.2  # 0: off
    critic_warmup: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("gamma", "lam"):
            require(self, key, 0 <= getattr(self, key) <= 1, "between 0 and 1")
        for key in ("value_coefficient", "value_clip", "critic_warmup"):
            require(self, key, getattr(self, key) >= 0, "0 or more")

    @property
    def head(self) -> str:
        return "value"

    def trains_head_alone(self, turn: int) -> bool:
        return turn < self.critic_warmup

    @property
    def needs_silent(self) -> bool:
        return True  # every token has a value to learn

    def reward(self, trajectory: Trajectory) -> float:
        return trajectory.reward  # the KL falls on single tokens, in `credit`

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        """The rewards: single tokens get theirs from `credit`."""
        estimators.require_finite(outcomes.rewards)
        return outcomes.rewards.copy()

    def credit(self, trajectories: Sequence[Trajectory], total: SumOverRanks) -> None:
        every: list[np.ndarray] = []
        for trajectory in trajectories:
            assert trajectory.values is not None, "ppo: a trajectory without the value head's values"
            rewards = token_credit.action_rewards(trajectory) - self.action_penalties(trajectory)
            values = trajectory.values[trajectory.action_mask].astype(np.float64)
            advantages, returns = estimators.generalised_advantages(rewards, values, self.gamma, self.lam)
            trajectory.returns = token_credit.spread(trajectory, returns)
            every.append(advantages)
        token_credit.set_whitened(trajectories, every, total, self.whiten)

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        terms, mask = super().__call__(scores, batch), batch.loss_mask
        assert scores.values is not None, "ppo: no scores of the value head"
        assert batch.values is not None, f"ppo: the batch of '{batch.objective}' lacks the values of its play"
        assert batch.returns is not None, f"ppo: the batch of '{batch.objective}' has no returns"
        values, old, returns = (torch.where(mask, x, 0) for x in (scores.values, batch.values, batch.returns))
        value_loss = functional.clipped_value_loss(values, old, returns, self.value_clip)
        policy_counts = float(not self.trains_head_alone(batch.turn))
        total = policy_counts * terms.total + self.value_coefficient * self.aggregate(value_loss, batch)
        metrics = {"value_loss": masked_sum(value_loss.detach(), mask), **value_sums(values, returns, mask)}
        return replace(terms, total=total, metrics={**terms.metrics, **metrics})

    def describe(self, means: Mapping[str, float]) -> dict[str, float]:
        return {**super().describe(means), **explained_variance(means)}
