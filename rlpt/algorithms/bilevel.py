"""BRIDGE: cooperative SFT and RL as a bilevel problem, in first-order updates (Chen et al., section 4).

Weights theta, adapters w (the teacher), shadow theta_hat. With the relaxed objective

    F(theta, w) = (1 - lambda) J_SFT(theta, w) - lambda [max_theta' J_RL(theta', w) - J_RL(theta, w)]

and the maximum taken at the shadow (Danskin), ascent is

    theta      += alpha [(1 - lambda) grad J_SFT(theta, w) + lambda grad J_RL(theta, w)]
    theta_hat  += alpha grad J_RL(theta_hat, w)
    w          += beta  [(1 - lambda) grad J_SFT(theta, w) + lambda (grad J_RL(theta, w) - grad J_RL(theta_hat, w))]

The submission prints a minus in the middle line; its text, and sense, say plus. The bracket in F is the cooperative
gain: what the demonstrations' weights earn beyond weights that learn by reward alone under the same adapters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlpt.algorithms.functional import MAX_LOG_RATIO


def teacher_gradient(mixed: Tensor, at_shadow: Tensor, balance: float) -> Tensor:
    """The adapters' gradient: `mixed` is that of the weighted losses at (theta, w), `at_shadow` that of the RL loss at
    (theta_hat, w), `balance` lambda. Losses or objectives alike: it is linear."""
    return mixed - balance * at_shadow


@dataclass(frozen=True)
class GainTerms:
    """Sums over trajectories of which the gain and its standard error are made."""

    number: float
    total: float
    squares: float

    @classmethod
    def of(
        cls, log_ratio: np.ndarray, log_ratio_at_shadow: np.ndarray, rewards: np.ndarray, baseline: float
    ) -> GainTerms:
        """Trajectories [N] that one policy sampled: log of (theta, w) / sampler and of (theta_hat, w) / sampler,
        summed over each one's actions, and its reward. E[ratio] = 1 under both, so a constant baseline only
        lowers variance."""
        weight = np.exp(np.minimum(log_ratio, MAX_LOG_RATIO)) - np.exp(np.minimum(log_ratio_at_shadow, MAX_LOG_RATIO))
        values = weight * (rewards - baseline)
        return cls(float(len(values)), float(values.sum()), float((values**2).sum()))

    @property
    def gain(self) -> float:
        """Estimate of J_RL(theta, w) - J_RL(theta_hat, w)."""
        return self.total / max(self.number, 1.0)

    @property
    def error(self) -> float:
        """Its standard error; 0 for fewer than two trajectories."""
        if self.number < 2:
            return 0.0
        variance = (self.squares - self.number * self.gain**2) / (self.number - 1)
        return math.sqrt(max(variance, 0.0) / self.number)


def segment_sums(values: Tensor, mask: Tensor, segments: Tensor) -> tuple[Tensor, Tensor]:
    """values [B, T] summed over the loss tokens of each attention segment that has any: (sums [S], first loss token's
    flat index [S])."""
    rows = torch.arange(values.shape[0], device=values.device)[:, None]
    keys = (rows * (int(segments.max()) + 2) + segments + 1)[mask]
    places = torch.arange(values.numel(), device=values.device).view_as(values)[mask]
    unique, inverse = torch.unique(keys, return_inverse=True)
    sums = values.new_zeros(len(unique)).index_add(0, inverse, values[mask])
    first = places.new_full((len(unique),), values.numel()).scatter_reduce(0, inverse, places, "amin")
    return sums, first
