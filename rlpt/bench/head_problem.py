"""The losses of an output layer that `rlpt bench head` measures, and random batches for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlpt.kernels.linear_logprob import linear_logprob

CLIP = 0.2
_BONUS = 0.01
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Shape:
    """What is measured: [rows, hidden] states, [vocabulary, hidden] weights, `live` the share of rows with a loss."""

    rows: int
    hidden: int
    vocabulary: int
    live: float
    dtype: str
    device: str


@dataclass(frozen=True)
class Problem:
    """One batch. Labels, advantages and the sampler's log-probs are of the rows with a loss."""

    hidden: Tensor  # [N, H], a leaf
    weight: Tensor  # [V, H], a leaf
    at: Tensor  # [n] i64: rows with a loss
    labels: Tensor  # [n] i64
    advantages: Tensor  # [n] f32
    old_logprobs: Tensor  # [n] f32


Loss = Callable[[Problem, slice, Tensor, Tensor], Tensor]  # (problem, rows, log-probs, entropy) -> [] their sum


def next_token(problem: Problem, rows: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
    """-sum log p."""
    return -logprobs.sum()


def clipped(problem: Problem, rows: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
    """PPO's surrogate."""
    advantages = problem.advantages[rows]
    ratio = (logprobs - problem.old_logprobs[rows]).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages).sum()


def clipped_with_entropy(problem: Problem, rows: slice, logprobs: Tensor, entropy: Tensor) -> Tensor:
    """PPO's surrogate and an entropy bonus."""
    return clipped(problem, rows, logprobs, entropy) - _BONUS * entropy.sum()


LOSSES: dict[str, Loss] = {
    "next-token": next_token,
    "clipped policy gradient": clipped,
    "clipped policy gradient with an entropy bonus": clipped_with_entropy,
}


def make_problem(shape: Shape, seed: int = 0) -> Problem:
    """Random states and weights whose logits have a standard deviation of about 1."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    hidden = normal(shape.rows, shape.hidden).to(shape.device, DTYPES[shape.dtype]).requires_grad_()
    weight = (normal(shape.vocabulary, shape.hidden) * shape.hidden**-0.5).to(shape.device, DTYPES[shape.dtype])
    count = max(1, round(shape.rows * shape.live))
    at = torch.randperm(shape.rows, generator=generator)[:count].sort().values.to(shape.device)
    labels = torch.randint(shape.vocabulary, (count,), generator=generator).to(shape.device)
    advantages, drift = normal(count).to(shape.device), normal(count).to(shape.device)
    with torch.no_grad():
        logprobs = linear_logprob(
            hidden[at], weight, labels, vocab_start=0, vocab_size=shape.vocabulary
        ).logprobs  # fmt: skip
    return Problem(hidden, weight.requires_grad_(), at, labels, advantages, logprobs + 0.3 * drift)
