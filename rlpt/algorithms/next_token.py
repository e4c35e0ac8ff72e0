"""Next-token prediction: maximum likelihood of the labels that the loss mask keeps."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.algorithms.base import LossTerms, masked_sum
from rlpt.algorithms.supervised import Supervised
from rlpt.batch import Batch, Scores
from rlpt.registry import register


@register("algorithm", "next_token")
@dataclass(frozen=True)
class NextToken(Supervised):
    """L = -sum log p(label). On played episodes this is behaviour cloning of every one of them, good or bad."""

    @property
    def is_token_local(self) -> bool:
        return True

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        total = -masked_sum(scores.logprobs, batch.loss_mask)
        return LossTerms(total, {"entropy": masked_sum(scores.entropy.detach(), batch.loss_mask)})
