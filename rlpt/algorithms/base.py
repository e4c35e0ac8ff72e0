"""What an algorithm is: how rewards become advantages, and how log-probs become a loss.

An objective returns a SUM over its loss tokens; the train step divides it by the objective's `count` over all
microbatches and data-parallel ranks. It never divides by anything itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from rlpt.batch import Batch, Scores
from rlpt.types import Trajectory

Baselines = dict[str, float]  # running baselines by key: an estimator's only state, kept in checkpoints by its source
SumOverRanks = Callable[[np.ndarray], np.ndarray]  # f64 array -> its sum over data-parallel ranks


@dataclass(frozen=True)
class LossTerms:
    """What an objective makes of one microbatch."""

    total: Tensor  # [] sum over loss tokens, differentiable (0 with a graph where every row is masked)
    metrics: dict[str, Tensor]  # name -> [] sum over loss tokens, detached; the same names for every microbatch
    maxima: dict[str, Tensor] = field(default_factory=dict)  # name -> [] largest over loss tokens, detached; 0 for none


@dataclass(frozen=True)
class Outcomes:
    """What an estimator compares: the N trajectories of one play, of all data-parallel ranks."""

    rewards: np.ndarray  # [N] f64
    peers: np.ndarray  # [N] i64, ids of the sets that are compared
    roles: Sequence[str]  # [N]
    tasks: Sequence[str]  # [N]


class Objective(Protocol):
    """Scores of a microbatch -> its loss."""

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms: ...

    def count(self, batch: Batch) -> float:
        """What this microbatch adds to the divisor of the objective's loss."""
        ...

    def describe(self, means: Mapping[str, float]) -> dict[str, float]:
        """Figures worked out from the means of `LossTerms.metrics`."""
        ...

    @property
    def is_token_local(self) -> bool:
        """Whether the loss's derivative in a token's log-prob and entropy depends on that token's own figures alone, so
        that it is known before the other tokens were scored."""
        ...


@dataclass(frozen=True)
class Algorithm(ABC):
    """An objective with an estimator of advantages. The subclass's fields are its options in YAML."""

    uses_rewards: ClassVar[bool] = True  # False: it learns from what is shown, advantages are not looked at
    uses_targets: ClassVar[bool] = False  # True: it learns from what a search chose among candidates

    @abstractmethod
    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        """The loss of one microbatch."""

    @abstractmethod
    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        """Advantages [N] f64. Running baselines are read before they are moved on, in place.

        All members of a set must be in the call. Raises ValueError for rewards that are not finite and for a set
        that is too small for the estimator.
        """

    def reward(self, trajectory: Trajectory) -> float:
        """What `advantages` compares for this trajectory: its reward, less a KL penalty where that is in the reward."""
        return trajectory.reward

    def credit(self, trajectories: Sequence[Trajectory], total: SumOverRanks) -> None:  # noqa: B027 (most have none)
        """Sets advantages and returns of single tokens of this rank's trajectories, for estimators that have such."""

    def count(self, batch: Batch) -> float:
        """The divisor that this microbatch adds: its loss tokens, silent ones too."""
        return float(batch.loss_mask.sum()) + batch.silent_tokens

    def describe(self, means: Mapping[str, float]) -> dict[str, float]:
        """Figures worked out from the means over loss tokens of `LossTerms.metrics`, to be reported beside them."""
        return {}

    @property
    def head(self) -> str:
        """The scalar head of the model that it trains, "": none."""
        return ""

    def trains_head_alone(self, turn: int) -> bool:
        """Whether its gradient in this turn (how often it has taken part) is to stop at the head."""
        return False

    @property
    def needs_values(self) -> bool:
        """Whether what its head says of the actions must be there when they are credited."""
        return bool(self.head)

    @property
    def needs_reference(self) -> bool:
        """Whether a reference snapshot's log-probs must be there."""
        return False

    @property
    def is_token_local(self) -> bool:
        """Whether the loss's derivative in a token's log-prob and entropy depends on that token's own figures alone:
        the output layer then makes loss and gradient in one pass. False is always right."""
        return False

    @property
    def needs_silent(self) -> bool:
        """Whether tokens with an advantage of 0 have a gradient (an entropy or a KL term, a value loss)."""
        return False


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Sum over the loss tokens; what lies off the mask (even NaN) reaches neither the sum nor the gradient."""
    return torch.where(mask, values, 0).sum()


def masked_max(values: Tensor, mask: Tensor) -> Tensor:
    """Largest value over the loss tokens; 0 where there are none."""
    return torch.where(mask, values, -torch.inf).max().nan_to_num(neginf=0.0) if mask.any() else values.new_zeros(())


def policy_tensors(batch: Batch, algorithm: str) -> tuple[Tensor, Tensor]:
    """(advantages, 0 off the mask; the sampler's log-probs), each [B, T]: what all played microbatches carry."""
    assert batch.advantages is not None, f"{algorithm}: the batch of '{batch.objective}' has no advantages"
    assert batch.behavior_logprobs is not None, (
        f"{algorithm}: the batch of '{batch.objective}' has no sampler log-probs"
    )
    return torch.where(batch.loss_mask, batch.advantages, 0), batch.behavior_logprobs
