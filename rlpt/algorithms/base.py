"""What an algorithm is: how rewards become advantages, and how log-probs become a loss.

An objective returns a SUM over its loss tokens; the train step divides it by the number of loss tokens of all
microbatches and data-parallel ranks. It never divides by anything itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from rlpt.batch import Batch, Scores


@dataclass(frozen=True)
class LossTerms:
    """What an objective makes of one microbatch."""

    total: Tensor  # [] sum over loss tokens, differentiable (0 with a graph where every row is masked)
    metrics: dict[str, Tensor]  # name -> [] sum over loss tokens, detached; the same names for every microbatch


class Objective(Protocol):
    """Scores of a microbatch -> its loss."""

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms: ...


@dataclass(frozen=True)
class Algorithm(ABC):
    """An objective with an estimator of advantages. The subclass's fields are its options in YAML."""

    uses_rewards: ClassVar[bool] = True  # False: advantages are all 1, and batches need none

    @abstractmethod
    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        """The loss of one microbatch."""

    @abstractmethod
    def advantages(self, rewards: np.ndarray, peers: np.ndarray, roles: list[str]) -> np.ndarray:
        """Rewards [N] f64, ids [N] i64 of the sets that are compared, and roles [N] -> advantages [N] f64.

        All members of a set must be in the call. Raises ValueError for rewards that are not finite and for a set
        that is too small for the estimator.
        """

    @property
    def needs_reference(self) -> bool:
        """Whether `batch.ref_logprobs` must be there."""
        return False

    @property
    def needs_silent(self) -> bool:
        """Whether tokens with an advantage of 0 have a gradient (an entropy or a KL term)."""
        return False


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the loss tokens; what lies off the mask (even NaN) reaches neither the sum nor the gradient."""
    return torch.where(mask, values, 0).sum()


def policy_tensors(batch: Batch, algorithm: str) -> tuple[Tensor, Tensor]:
    """(advantages, 0 off the mask; the sampler's log-probs), each [B, T]: what all played microbatches carry."""
    assert batch.advantages is not None, f"{algorithm}: the batch of '{batch.objective}' has no advantages"
    assert batch.behavior_logprobs is not None, (
        f"{algorithm}: the batch of '{batch.objective}' has no sampler log-probs"
    )
    return torch.where(batch.loss_mask, batch.advantages, 0), batch.behavior_logprobs
