"""Group-relative policy optimisation (Shao et al. 2402.03300), with DAPO's clip-higher (2503.14476)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rlpt.algorithms import functional
from rlpt.algorithms.base import Algorithm, LossTerms, masked_sum, policy_tensors
from rlpt.batch import Batch, Scores
from rlpt.registry import register


@register("algorithm", "grpo")
@dataclass(frozen=True)
class GRPO(Algorithm):
    """L = -sum [min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) - kl_coefficient * KL + entropy_bonus * H].

    rho is policy / sampler, a token; A is the reward relative to its peers. `normalise_std` true divides A by the
    peers' standard deviation, as the paper does; false is Dr. GRPO (2503.20783). The loss is a sum over tokens (DAPO's
    token-level loss), where the paper takes the mean of each sequence first. With `kl_coefficient` > 0 the batch must
    carry the log-probs of the reference snapshot, and `kl_estimator` k3 is the paper's.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    normalise_std: bool = True
    kl_coefficient: float = 0.0
    kl_estimator: functional.KLEstimator = "k3"
    entropy_bonus: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.clip_low <= 1:
            raise ValueError(f"clip_low={self.clip_low}: must be above 0 and at most 1")
        if self.clip_high <= 0:
            raise ValueError(f"clip_high={self.clip_high}: must be above 0")
        for key in ("kl_coefficient", "entropy_bonus"):
            if getattr(self, key) < 0:
                raise ValueError(f"{key}={getattr(self, key)}: must be 0 or more")

    @property
    def needs_reference(self) -> bool:
        return self.kl_coefficient > 0

    @property
    def needs_silent(self) -> bool:
        return self.kl_coefficient > 0 or self.entropy_bonus > 0

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        mask = batch.loss_mask
        advantages, behavior = policy_tensors(batch, "grpo")
        drift = functional.log_ratio(scores.logprobs, behavior, mask)
        ratio = drift.exp()
        surrogate = functional.clipped_surrogate(ratio, advantages, self.clip_low, self.clip_high)
        total = -masked_sum(surrogate, mask) - self.entropy_bonus * masked_sum(scores.entropy, mask)
        clipped = functional.is_clipped(ratio.detach(), advantages, self.clip_low, self.clip_high)
        metrics = {
            "entropy": masked_sum(scores.entropy.detach(), mask),
            "advantage_abs": masked_sum(advantages.abs(), mask),
            "behavior_kl": masked_sum(functional.kl_estimate(drift.detach(), "k3"), mask),
            "clipped": masked_sum(clipped.to(drift.dtype), mask),
        }
        if self.needs_reference:
            assert batch.ref_logprobs is not None, (
                "grpo: kl_coefficient > 0 needs the reference's log-probs in the batch"
            )
            to_reference = torch.where(mask, batch.ref_logprobs - scores.logprobs, 0)
            kl = masked_sum(functional.kl_estimate(to_reference, self.kl_estimator), mask)
            total = total + self.kl_coefficient * kl
            metrics["reference_kl"] = kl.detach()
        return LossTerms(total, metrics)

    def advantages(self, rewards: np.ndarray, peers: np.ndarray, roles: list[str]) -> np.ndarray:
        return functional.group_normalise(rewards, peers, divide_by_std=self.normalise_std)
