"""AlphaZero's loss: the policy learns what a search chose, the value head how the game ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from rlpt.algorithms.base import LossTerms, SumOverRanks, masked_sum
from rlpt.algorithms.distill import Distill
from rlpt.algorithms.policy_gradient import require
from rlpt.algorithms.value_figures import explained_variance, value_sums
from rlpt.batch import Batch, Scores
from rlpt.registry import register
from rlpt.types import Trajectory


@register("algorithm", "alpha_zero")
@dataclass(frozen=True)
class AlphaZero(Distill):
    """L = sum over actions of -sum_k w_k log p(candidate k) + value_coefficient (V - z)^2 (Silver et al. 1712.01815):
    w the share of a search's visits, z the trajectory's reward.

    An action that nothing was searched for adds to the value loss alone, so a share of episodes may search and all
    teach the value (as the fast moves of KataGo, Wu 1902.10565, section 3.1). Give the rubric `game_return` alone: V is
    then the return that a search wants of it.
    """

    uses_rewards: ClassVar[bool] = True

    value_coefficient: float = 1.0

    def __post_init__(self) -> None:
        require(self, "value_coefficient", self.value_coefficient >= 0, "0 or more")

    @property
    def head(self) -> str:
        return "value"

    @property
    def needs_values(self) -> bool:
        return False

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        mask = batch.loss_mask
        assert scores.values is not None, "alpha_zero: no scores of the value head"
        assert batch.returns is not None, f"alpha_zero: the batch of '{batch.objective}' has no returns"
        terms = super().__call__(scores, batch)
        values, returns = torch.where(mask, scores.values, 0), torch.where(mask, batch.returns, 0)
        total = terms.total + self.value_coefficient * masked_sum((values - returns).square(), mask)
        return LossTerms(total, {**terms.metrics, **value_sums(values, returns, mask)})

    def describe(self, means: Mapping[str, float]) -> dict[str, float]:
        return explained_variance(means)

    def credit(self, trajectories: Sequence[Trajectory], total: SumOverRanks) -> None:
        """Every action's return is the trajectory's reward."""
        for one in trajectories:
            one.returns = np.full(len(one.token_ids), one.reward, np.float32)
