"""Distillation of soft targets: what a search found, or another policy's choice among candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from rlpt.algorithms import functional
from rlpt.algorithms.base import LossTerms, masked_sum
from rlpt.algorithms.supervised import Supervised
from rlpt.batch import Batch, Scores
from rlpt.registry import register


@register("algorithm", "distill")
@dataclass(frozen=True)
class Distill(Supervised):
    """L = -sum over tokens and candidates k of w_k log p(candidate k): the policy part of AlphaZero's loss (Silver et
    al. 1712.01815), with w the share of a search's visits.

    Its gradient is that of KL(w || p) where the weights of a token sum to 1; candidates left over have weight 0.
    """

    uses_targets: ClassVar[bool] = True

    @property
    def is_token_local(self) -> bool:
        return True

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        mask, weights = batch.loss_mask, batch.candidate_weights
        assert weights is not None, f"distill: the batch of '{batch.objective}' has no candidates' weights"
        assert scores.candidate_logprobs is not None, "distill: no scores of the candidates"
        loss = functional.soft_cross_entropy(scores.candidate_logprobs, weights)
        target_entropy = -torch.xlogy(weights, weights).sum(-1)
        metrics = {
            "entropy": masked_sum(scores.entropy.detach(), mask),
            "target_entropy": masked_sum(target_entropy, mask),
            "target_kl": masked_sum(loss.detach() - target_entropy, mask),
        }
        return LossTerms(masked_sum(loss, mask), metrics)
