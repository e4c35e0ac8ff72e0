"""The derivative of an objective's loss in the scores of a few tokens, for the output layer's one pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlpt.algorithms.base import Objective
from rlpt.batch import Batch, Scores


def loss_slopes(objective: Objective) -> Callable[[Scores, Batch], Scores]:
    """(scores [1, n], their batch) -> d total / d scores, of an objective that looks at each token alone.

    The step's loss is this total times a factor that it doesn't have to know; values keep no derivative.
    """

    def slopes(scores: Scores, batch: Batch) -> Scores:
        with torch.enable_grad():
            logprobs, entropy = _leaf(scores.logprobs), _leaf(scores.entropy)
            candidates = None if scores.candidate_logprobs is None else _leaf(scores.candidate_logprobs)
            total = objective(Scores(logprobs, entropy, candidates, scores.values), batch).total
            leaves = [logprobs, entropy] + ([] if candidates is None else [candidates])
            found = (
                torch.autograd.grad(total, leaves, allow_unused=True) if total.requires_grad else [None] * len(leaves)
            )
        parts = [torch.zeros_like(leaf) if part is None else part for leaf, part in zip(leaves, found)]
        return Scores(parts[0], parts[1], None if candidates is None else parts[2])

    return slopes


def _leaf(values: Tensor) -> Tensor:
    return values.detach().requires_grad_()
