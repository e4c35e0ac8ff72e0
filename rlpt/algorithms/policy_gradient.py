"""What all policy gradients share: a surrogate a token, the mean over tokens, KL and entropy terms, stale samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rlpt.algorithms import functional, token_credit
from rlpt.algorithms.base import Algorithm, LossTerms, masked_max, masked_sum, policy_tensors
from rlpt.batch import Batch, Scores
from rlpt.types import Trajectory

Normalizer = Literal["token", "sequence", "constant"]


@dataclass(frozen=True)
class PolicyGradient(Algorithm):
    """L = -(mean of surrogate - kl_coefficient * KL + entropy_bonus * H); rho is policy / sampler, a token.

    `normalizer` says which mean. token: over all loss tokens of the step, so that long trajectories weigh more (DAPO).
    sequence: over trajectories of each one's mean over its tokens, so that a token of a short one weighs more (GRPO).
    constant: over trajectories of their sums / `constant` (Dr. GRPO, SPIRAL: no weight depends on a length); with 1 it
    is the gradient of the expected reward itself, and a `constant` near the usual length keeps an objective's
    coefficient comparable.
    `kl_in`: in the loss, by `kl_estimator` at each token; or in the reward that trajectories are compared by, summed
    over the actions. k1 in the loss has an expected gradient of 0 and is refused.
    `truncate` (0: off) bounds what a stale sample can do. Where the surrogate is A log p it is weighed by min(rho,
    truncate), without gradient: truncated importance sampling, and at 0 there is no weight at all, which is right for
    samples of the current weights only. Where the surrogate is clipped, rho itself is capped: for A < 0 and rho >
    truncate the gradient is 0, dual-clip PPO (Ye et al. 1912.09729).
    `mask_sequences` (0: off) leaves out the segments of a row whose geometric mean of rho is outside [1 / x, x]: their
    tokens add nothing to the loss, but stay in the number that it is divided by.
    """

    normalizer: Normalizer = "token"
    constant: int = 1
    kl_coefficient: float = 0.0
    kl_estimator: functional.KLEstimator = "k3"
    kl_in: Literal["loss", "reward"] = "loss"
    entropy_bonus: float = 0.0
    truncate: float = 0.0
    mask_sequences: float = 0.0

    def __post_init__(self) -> None:
        for key in ("kl_coefficient", "entropy_bonus"):
            require(self, key, getattr(self, key) >= 0, "0 or more")
        require(self, "constant", self.constant >= 1, "1 or more")
        require(self, "truncate", self.truncate == 0 or self.truncate >= 1, "0 (off), or 1 or more")
        require(self, "mask_sequences", self.mask_sequences == 0 or self.mask_sequences > 1, "0 (off), or above 1")
        if self._kl_in_loss and self.kl_estimator == "k1":
            raise ValueError(
                "kl_estimator=k1 in the loss penalises nothing (its expected gradient is 0): use k2 or k3, or "
                "kl_in: reward"
            )

    @property
    def needs_reference(self) -> bool:
        return self.kl_coefficient > 0

    @property
    def is_token_local(self) -> bool:
        return not self.mask_sequences

    @property
    def needs_silent(self) -> bool:
        return self._kl_in_loss or self.entropy_bonus > 0

    @property
    def _kl_in_loss(self) -> bool:
        return self.kl_coefficient > 0 and self.kl_in == "loss"

    @property
    def _kl_in_reward(self) -> bool:
        return self.kl_coefficient != 0 and self.kl_in != "loss"

    def ratio(self, drift: Tensor, batch: Batch) -> Tensor:
        """rho [B, T] that the surrogate sees, from the tokens' log(policy / sampler)."""
        return drift.exp()

    def surrogate(self, logprobs: Tensor, ratio: Tensor, advantages: Tensor) -> Tensor:
        """What is maximised, a token [B, T]; `ratio` is at most `truncate`."""
        return functional.weighted_log_likelihood(logprobs, advantages, ratio if self.truncate else 1.0)

    def is_clipped(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        """[B, T] bool: tokens whose gradient is cut off or bounded; `ratio` isn't truncated here."""
        return (ratio > (self.truncate or math.inf)) & (advantages != 0)

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        mask = batch.loss_mask
        advantages, behavior = policy_tensors(batch, type(self).__name__)
        drift = functional.log_ratio(scores.logprobs, behavior, mask)
        ratio = self.ratio(drift, batch)
        seen = ratio.clamp(max=self.truncate) if self.truncate else ratio
        loss = -self.surrogate(scores.logprobs, seen, advantages) - self.entropy_bonus * scores.entropy
        kept = self._kept(drift.detach(), batch)
        importance = drift.detach().exp()
        metrics = {
            "entropy": scores.entropy.detach(),
            "advantage_abs": advantages.abs(),
            "behavior_kl": functional.kl_estimate(drift.detach(), "k3"),
            "clipped": self.is_clipped(ratio.detach(), advantages).to(drift.dtype),
            "masked": (~kept).to(drift.dtype),
            "importance": importance,
            "importance_squared": importance.square(),
        }
        if self.needs_reference:
            assert batch.ref_logprobs is not None, (
                f"{type(self).__name__}: kl_coefficient > 0 needs the reference's log-probs in the batch"
            )
            to_reference = functional.log_ratio(batch.ref_logprobs, scores.logprobs, mask)
            kl = functional.kl_estimate(to_reference, self.kl_estimator)
            metrics["reference_kl"] = kl.detach()
            if self._kl_in_loss:
                loss = loss + self.kl_coefficient * kl
        sums = {name: masked_sum(values, mask) for name, values in metrics.items()}
        total = self.aggregate(torch.where(kept, loss, 0), batch)
        return LossTerms(total, sums, {"largest_ratio": masked_max(importance, mask)})

    def aggregate(self, per_token: Tensor, batch: Batch) -> Tensor:
        """[B, T] -> [] the sum over loss tokens that `count` is the divisor of."""
        if self.normalizer == "sequence":
            per_token = per_token * torch.where(batch.loss_mask, self._sequence_share(batch), 0)
        elif self.normalizer == "constant":
            per_token = per_token / self.constant
        return masked_sum(per_token, batch.loss_mask)

    def count(self, batch: Batch) -> float:
        """Loss tokens; or, for means over trajectories, how many of them the loss tokens make up."""
        if self.normalizer == "token":
            return super().count(batch)
        return float(masked_sum(self._sequence_share(batch).double(), batch.loss_mask)) + batch.silent_trajectories

    def reward(self, trajectory: Trajectory) -> float:
        if not self._kl_in_reward:
            return trajectory.reward
        return trajectory.reward - float(self.action_penalties(trajectory).sum())

    def action_penalties(self, trajectory: Trajectory) -> np.ndarray:
        """[n] f64: what the KL takes off the reward at each action (0 where it isn't in the reward)."""
        if not self._kl_in_reward:
            return np.zeros(int(trajectory.action_mask.sum()))
        return self.kl_coefficient * token_credit.action_kl(trajectory, self.kl_estimator)

    def describe(self, means: Mapping[str, float]) -> dict[str, float]:
        """`effective_sample_size`: (E rho)^2 / E rho^2, the share of the tokens that would do as well if they were
        samples of the current weights; left out where there were no tokens."""
        if means["importance_squared"] == 0:
            return {}
        return {"effective_sample_size": means["importance"] ** 2 / means["importance_squared"]}

    def _kept(self, drift: Tensor, batch: Batch) -> Tensor:
        """[B, T] bool: the tokens that `mask_sequences` leaves in the loss."""
        if not self.mask_sequences:
            return torch.ones_like(batch.loss_mask)
        mean = functional.segment_mean(drift, batch.segments, batch.loss_mask)
        return mean.abs() <= math.log(self.mask_sequences)

    def _sequence_share(self, batch: Batch) -> Tensor:
        assert batch.sequence_share is not None, (
            f"{type(self).__name__}: normalizer {self.normalizer} needs sequence_share in the batch"
        )
        return batch.sequence_share


@dataclass(frozen=True)
class ClippedPolicyGradient(PolicyGradient):
    """A policy gradient whose surrogate is PPO's: min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)."""

    clip_low: float = 0.2
    clip_high: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "clip_low", 0 < self.clip_low <= 1, "above 0 and at most 1")
        require(self, "clip_high", self.clip_high > 0, "above 0")
        above = self.truncate == 0 or self.truncate > 1 + self.clip_high
        require(self, "truncate", above, f"0 (off), or above 1 + clip_high = {1 + self.clip_high:g}")

    def surrogate(self, logprobs: Tensor, ratio: Tensor, advantages: Tensor) -> Tensor:
        return functional.clipped_surrogate(ratio, advantages, self.clip_low, self.clip_high)

    def is_clipped(self, ratio: Tensor, advantages: Tensor) -> Tensor:
        clipped = functional.is_clipped(ratio, advantages, self.clip_low, self.clip_high)
        return clipped | super().is_clipped(ratio, advantages)


def require(options: object, key: str, ok: bool, must_be: str) -> None:
    """Raises ValueError that names the option `key` and says what it must be."""
    if not ok:
        raise ValueError(f"{key}={getattr(options, key)}: must be {must_be}")
