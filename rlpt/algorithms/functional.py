"""The mathematics of policy gradients, as pure functions: estimators of advantages in numpy, losses in torch.

Rewards r [N] f64; `peers` [N] i64 names the set that each is compared with. A set whose rewards are all equal gets
advantages of exactly 0 (not of rounding size): rewards are taken relative to the least of their set first, so
that a later division by a standard deviation can't blow rounding up into a signal.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0  # e^20: far beyond any clip, and sums of it are still finite in f32

KLEstimator = Literal["k1", "k2", "k3"]


def group_mean_baseline(rewards: np.ndarray, peers: np.ndarray) -> np.ndarray:
    """A_i = r_i - mean of i's set (GRPO without its division, 2402.03300; Dr. GRPO, 2503.20783).

    The mean holds r_i itself, which shrinks the expected gradient by (n - 1) / n. Fails for a set of one: A = 0
    whatever the reward, hence ValueError.
    """
    inverse, sizes, relative = _sets(rewards, peers)
    return relative - (np.bincount(inverse, relative, len(sizes)) / sizes)[inverse]


def leave_one_out(rewards: np.ndarray, peers: np.ndarray) -> np.ndarray:
    """A_i = r_i - mean of the others in i's set (RLOO: Kool et al. 2019; 2402.14740); unbiased.

    Equals n / (n - 1) times `group_mean_baseline`. Fails for a set of one (there are no others): ValueError.
    """
    inverse, sizes, relative = _sets(rewards, peers)
    total = np.bincount(inverse, relative, len(sizes))[inverse]
    return relative - (total - relative) / (sizes[inverse] - 1)


def group_normalise(rewards: np.ndarray, peers: np.ndarray, divide_by_std: bool, eps: float = 1e-6) -> np.ndarray:
    """A_i = (r_i - mean) / (std + eps) over i's set (GRPO, 2402.03300, section 4.1.2); std is the population's.

    Without `divide_by_std` it is `group_mean_baseline` (Dr. GRPO, 2503.20783: the division weighs problems that are
    almost always or almost never solved above those in the middle). With it, a set whose rewards differ by little
    more than `eps` gets advantages as large as any other: graded rewards with small noise become large noise.
    """
    advantages = group_mean_baseline(rewards, peers)
    if not divide_by_std:
        return advantages
    inverse, sizes, _ = _sets(rewards, peers)
    deviation = np.sqrt(np.bincount(inverse, advantages**2, len(sizes)) / sizes)
    return advantages / (deviation[inverse] + eps)


def log_ratio(logprobs: Tensor, behavior_logprobs: Tensor, mask: Tensor) -> Tensor:
    """log(policy / sampler) [B, T], 0 off the mask, at most MAX_LOG_RATIO (so that its exp is finite).

    The bound acts only on ratios beyond any clip. PPO's clip has already cut those with A > 0; for A < 0 it sets the
    gradient to 0, as dual-clip PPO does (1912.09729) from a far smaller ratio.
    """
    return torch.where(mask, logprobs - behavior_logprobs, 0).clamp(max=MAX_LOG_RATIO)


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) a token, to be maximised (PPO, 1707.06347, eq. 7).

    Two bounds are DAPO's clip-higher (2503.14476): a rare token may grow further before it is cut. It bounds
    only one side: a token with A < 0 and a large ratio keeps its full gradient.
    """
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.minimum(ratio * advantages, clipped * advantages)


def is_clipped(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Bool: the tokens whose gradient `clipped_surrogate` cuts."""
    return ((ratio > 1 + clip_high) & (advantages > 0)) | ((ratio < 1 - clip_low) & (advantages < 0))


def kl_estimate(log_ratio: Tensor, estimator: KLEstimator) -> Tensor:
    """A token's estimate of KL(q || p) from a sample of q, given log_ratio = log p - log q (Schulman 2020).

    k1 = -log_ratio: unbiased, negative at times. k2 = log_ratio^2 / 2: biased, never negative. k3 = e^log_ratio - 1 -
    log_ratio: unbiased, never negative, unbounded variance where p >> q.
    As a loss on samples of the policy q they differ more: the expected gradient of k1 is 0 (it penalises nothing),
    that of k2 is the gradient of KL(q || p), and that of k3 (GRPO's choice) is the gradient of KL(p || q).
    """
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    assert estimator == "k3", f"unknown estimator {estimator}; known: k1, k2, k3"
    return log_ratio.expm1() - log_ratio


def _sets(rewards: np.ndarray, peers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(set number [N], set sizes [G], rewards relative to the least of their set [N])."""
    assert rewards.shape == peers.shape, f"{rewards.shape} rewards, {peers.shape} peers"
    if not np.isfinite(rewards).all():
        raise ValueError(f"rewards must be finite; the one at {int(np.argmin(np.isfinite(rewards)))} is not")
    ids, inverse, sizes = np.unique(peers, return_inverse=True, return_counts=True)
    if (sizes == 1).any():
        raise ValueError(
            f"set {ids[np.argmax(sizes == 1)]} has one member: relative to its own mean every reward is worth 0 and "
            "nothing would be learnt; play at least 2 attempts a problem, or use reinforce with baseline: none"
        )
    least = np.full(len(ids), np.inf)
    np.minimum.at(least, inverse, rewards)
    return inverse, sizes, rewards - least[inverse]
