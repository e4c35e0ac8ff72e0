"""Clipped importance-sampling policy optimisation (MiniMax-M1, 2506.13585)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms import functional
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient
from rlpt.registry import register


@register("algorithm", "cispo")
@dataclass(frozen=True)
class CISPO(ClippedPolicyGradient):
    """L = -mean over all tokens of sg[clip(rho, 1 - clip_low, 1 + clip_high)] A log p, A as in GRPO (eq. 4 and 5).

    The weight is clipped, not the gradient: no token is dropped. `clip_low` 1 is the paper's: no lower bound. Its upper
    one isn't printed; a weight of at most 5 is ours, within what ScaleRL (2510.13786) tried (from memory).
    """

    clip_low: float = 1.0
    clip_high: float = 4.0

    def __post_init__(self) -> None:
        if self.truncate:
            raise ValueError(f"truncate={self.truncate:g}: clip_high is this weight's cap; lower that instead")
        super().__post_init__()

    def surrogate(self, logprobs: Tensor, ratio: Tensor, advantages: Tensor) -> Tensor:
        weight = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        return functional.weighted_log_likelihood(logprobs, advantages, weight)

    def is_clipped(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        return ((ratio > 1 + self.clip_high) | (ratio < 1 - self.clip_low)) & (advantages != 0)

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return estimators.group_normalise(outcomes.rewards, outcomes.peers, divide_by_std=True)
