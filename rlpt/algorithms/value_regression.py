"""A scalar head fitted to given returns: step values of a process head, or a value head before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from rlpt.algorithms.base import LossTerms, masked_sum
from rlpt.algorithms.supervised import Supervised
from rlpt.algorithms.value_figures import explained_variance, value_sums
from rlpt.batch import Batch, Scores
from rlpt.registry import register


@register("algorithm", "value_regression")
@dataclass(frozen=True)
class ValueRegression(Supervised):
    """`loss` squared: sum (V - R)^2 / 2. bce: sum -R log s(V) - (1 - R) log(1 - s(V)), s the sigmoid: R must be a
    probability, and the head then says its logit (whoever reads it takes the sigmoid).

    With R the share of continuations from a step that end right, it is Math-Shepherd's process reward model (Wang et
    al. 2312.08935; soft labels under bce, from memory).
    """

    head: Literal["value", "process"] = "process"
    loss: Literal["squared", "bce"] = "squared"

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        mask = batch.loss_mask
        assert scores.values is not None, f"value_regression: no scores of the {self.head} head"
        assert batch.returns is not None, f"value_regression: the batch of '{batch.objective}' has no returns"
        values, returns = torch.where(mask, scores.values, 0), torch.where(mask, batch.returns, 0)
        if self.loss == "squared":
            loss, said = (values - returns).square() / 2, values
        else:
            if ((returns < 0) | (returns > 1)).any():
                raise ValueError("value_regression: loss bce needs returns between 0 and 1; use loss: squared")
            loss, said = binary_cross_entropy_with_logits(values, returns, reduction="none"), values.sigmoid()
        metrics = {"entropy": masked_sum(scores.entropy.detach(), mask), **value_sums(said, returns, mask)}
        return LossTerms(masked_sum(loss, mask), metrics)

    def describe(self, means: Mapping[str, float]) -> dict[str, float]:
        return explained_variance(means)
