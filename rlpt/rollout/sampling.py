"""How one token is drawn: renormalisation over the kept set, and noise that is keyed by row, not by batch.

The log-probs recorded are those of the distribution that was sampled from: logits / temperature, restricted to the
kept set (legal tokens, then top-k, then top-p), and renormalised. The trainer recomputes them over the same set.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_WIDE = 4096  # columns from which on they are added up by blocks
BLOCK = 128  # columns of one


def restricted(logits: Tensor, temperature: Tensor | None, legal: Tensor | None) -> Tensor:
    """logits [B, V], or some of their columns, / temperature [B] f32 (0 reads as 1; None: 1), -inf outside `legal`
    [B, V] bool (None: all are)."""
    scaled = logits if temperature is None else logits / torch.where(temperature > 0, temperature, 1.0)[:, None]
    return scaled if legal is None else torch.where(legal, scaled, -torch.inf)


def kept_logprobs(
    logits: Tensor, temperature: Tensor | None, legal: Tensor | None, top_k: Tensor | None, top_p: Tensor | None
) -> Tensor:
    """logits [B, V] -> log-probs [B, V] of the renormalised sampler, -inf outside the kept set.

    `temperature`, `top_p` [B] f32 (temperature 0 reads as 1: greedy picks the largest), `top_k` [B] i64 (0: off),
    `legal` [B, V] bool; None: off in all rows (temperature: 1). At a tie on top-k's edge all tied tokens stay.
    """
    scaled = restricted(logits, temperature, legal)
    vocabulary = scaled.shape[-1]
    if top_k is not None:
        k = torch.where(top_k > 0, top_k, vocabulary).clamp(max=vocabulary)
        edge = scaled.sort(dim=-1, descending=True).values.gather(1, (k - 1)[:, None])
        scaled = scaled.masked_fill(scaled < edge, -torch.inf)
    if top_p is not None:
        ordered, order = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1) - ordered
        keep = torch.zeros_like(scaled, dtype=torch.bool)
        keep.scatter_(1, order, ((before < top_p[:, None]) | (top_p[:, None] >= 1)) & (ordered > 0))
        scaled = scaled.masked_fill(~keep, -torch.inf)
    return scaled.log_softmax(dim=-1)


def draw(
    logprobs: Tensor,
    uniform: Tensor,
    greedy: Tensor | None,
    is_whole: bool = False,
    columns: Tensor | None = None,
) -> Tensor:
    """One token a row by the inverse of the cumulative distribution.

    logprobs [B, V], uniform [B] f64 in [0, 1), greedy [B] bool (None: no row) -> ids [B]. A token outside the kept set
    is never drawn; with `is_whole` no row has one. `columns` [B, K] i64 hold all of each row's kept set in ascending
    order, and may hold others after them: no other column is read.
    """
    if columns is not None:
        place = draw(logprobs.gather(1, columns), uniform, greedy)
        return columns.gather(1, place[:, None]).squeeze(1)
    drawn = _first_above(logprobs, uniform)
    last = logprobs.shape[-1] - 1
    if is_whole:
        drawn = drawn.clamp(max=last)
    else:
        drawn = torch.minimum(drawn, last - (logprobs > -torch.inf).flip(-1).int().argmax(dim=-1))
    return drawn if greedy is None else torch.where(greedy, logprobs.argmax(dim=-1), drawn)


def _first_above(logprobs: Tensor, share: Tensor) -> Tensor:
    """The first column up to and with which a row's probabilities [B, V] add up to more than `share` [B] of their sum.

    Sums are f64. A wide row is added up by blocks first, then inside the block where the share falls: running sums of
    all its columns would be more memory than the rest of a decode step moves.
    """
    if logprobs.shape[1] <= _WIDE:
        cumulative = logprobs.to(torch.float64, copy=True).exp_().cumsum(-1)
        return torch.searchsorted(cumulative, share[:, None] * cumulative[:, -1:], right=True).squeeze(1)
    blocks = in_blocks(logprobs.exp())
    cumulative = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target = share[:, None] * cumulative[:, -1:]
    block = torch.searchsorted(cumulative, target, right=True).clamp(max=blocks.shape[1] - 1)
    before = torch.where(block > 0, cumulative.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, BLOCK)).squeeze(1).double().cumsum(-1) + before
    place = torch.searchsorted(inside, target, right=True).clamp(max=BLOCK - 1)
    return (block * BLOCK + place).squeeze(1)


def in_blocks(columns: Tensor) -> Tensor:
    """[B, C] -> [B, ceil(C / BLOCK), BLOCK], zeros after the last column."""
    if columns.shape[1] % BLOCK:
        columns = F.pad(columns, (0, -columns.shape[1] % BLOCK))
    return columns.reshape(len(columns), -1, BLOCK)


def certainty(logprobs: Tensor, is_whole: bool = False, size: Tensor | None = None) -> Tensor:
    """KL(U || p) [B] of log-probs [B, V], U uniform over the kept set: -mean log p - log K, 0 where one token is kept.

    A token's part of self-certainty (Kang et al. 2502.18581, eq. 8, whose set is the whole vocabulary). With
    `is_whole` every token is kept; `size` [B] i64 is how many are (None: to be counted).
    """
    if is_whole:
        return -logprobs.mean(dim=-1) - math.log(logprobs.shape[-1])
    kept = logprobs > -torch.inf
    size = kept.sum(dim=-1) if size is None else size
    return -torch.where(kept, logprobs, 0).sum(dim=-1) / size - size.log()


def keyed_uniform(seeds: np.ndarray, keys: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Counter-based noise in [0, 1): a hash of (seed, row key, position), each [B] uint64 -> [B] float64.

    SplitMix64 finaliser (Steele, Lea and Flood 2014) chained over the three words. The same row draws the same noise
    in any batch, on any rank.
    """
    with np.errstate(over="ignore"):
        state = _mix(np.asarray(seeds, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        state = _mix(state ^ np.asarray(keys, dtype=np.uint64))
        state = _mix(state + np.asarray(position, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95) + np.uint64(1))
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
