"""The mathematics of policy-gradient, value and distillation losses, as pure functions of tensors: a value a token."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0  # e^20: far beyond any clip, and sums of its square are still finite in f32

KLEstimator = Literal["k1", "k2", "k3"]


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


def weighted_log_likelihood(logprobs: Tensor, advantages: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """w A log p a token, to be maximised: REINFORCE (Williams 1992); `weight` carries no gradient.

    With w = rho it has the gradient of rho A, and with a w that is bounded (truncated importance sampling, Espeholt
    et al. 1802.01561; CISPO, 2506.13585) every token keeps a gradient, where a clipped surrogate drops some.
    """
    weight = weight.detach() if isinstance(weight, Tensor) else weight
    return weight * advantages * logprobs


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


def segment_mean(values: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
    """[B, T] f32: at each loss token the mean of `values` over the loss tokens of its row's segment; 0 off the mask.

    `segments` [B, T] i64 counts from 0 in each row; padding, at -1, is never on the mask.
    """
    kinds = int(segments.max()) + 2
    rows = torch.arange(segments.shape[0], device=segments.device)[:, None]
    keys = (rows * kinds + segments + 1).flatten()
    seen = torch.where(mask, values, 0).flatten()
    sums = seen.new_zeros(segments.shape[0] * kinds).index_add(0, keys, seen)
    counts = torch.zeros_like(sums).index_add(0, keys, mask.flatten().to(sums.dtype))
    means = (sums / counts.clamp(min=1))[keys].view_as(values)
    return torch.where(mask, means, 0)


def sequence_log_ratio(log_ratio: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
    """log s [B, T]: the mean log-ratio of a token's segment, with the gradient of the token's own (GSPO-token,
    2507.18071, section 4.3): log s_t = sg[log s] + log p_t - sg[log p_t].

    Where all tokens of a segment have one advantage, its gradient is that of the sequence ratio of GSPO itself.
    """
    return segment_mean(log_ratio.detach(), segments, mask) + log_ratio - log_ratio.detach()


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """max((V - R)^2, (V_old + clamp(V - V_old, -clip, clip) - R)^2) / 2 a token (PPO's value clipping, in the form of
    RLSP's code); clip 0: (V - R)^2 / 2.

    A value that has moved by more than `clip` towards its return has no gradient; one that moved away is pulled back.
    """
    error = (values - returns).square()
    if clip == 0:
        return error / 2
    near = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum(error, (near - returns).square()) / 2


def soft_cross_entropy(candidate_logprobs: Tensor, weights: Tensor) -> Tensor:
    """-sum_k w_k log p(candidate k) [B, T] of [B, T, K]; a candidate of weight 0 counts for nothing, even at log 0."""
    return -(weights * torch.where(weights > 0, candidate_logprobs, 0)).sum(-1)
