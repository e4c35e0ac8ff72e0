"""Group sequence policy optimisation (Zheng et al. 2507.18071)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms import functional
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient, Normalizer
from rlpt.batch import Batch
from rlpt.registry import register


@register("algorithm", "gspo")
@dataclass(frozen=True)
class GSPO(ClippedPolicyGradient):
    """GRPO with one ratio a sequence, the geometric mean of its tokens' (eq. 5 and 7), so that a sequence is cut as a
    whole. Such a ratio moves far less than a token's: the clip range is the paper's 3e-4 and 4e-4.

    A sequence is a segment of a row: of a trajectory that was played through a window, each of its views has its own
    ratio. Written as GSPO-token, so that advantages of single tokens keep their meaning.
    """

    normalizer: Normalizer = "sequence"
    clip_low: float = 3e-4
    clip_high: float = 4e-4

    @property
    def is_token_local(self) -> bool:
        return False  # a token's ratio is its sequence's

    def ratio(self, drift: Tensor, batch: Batch) -> Tensor:
        return functional.sequence_log_ratio(drift, batch.segments, batch.loss_mask).exp()

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return estimators.group_normalise(outcomes.rewards, outcomes.peers, divide_by_std=True)
