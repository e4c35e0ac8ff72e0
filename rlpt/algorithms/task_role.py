"""Task-relative REINFORCE++ (Absolute Zero Reasoner: Zhao et al. 2505.03335)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.algorithms.policy_gradient import ClippedPolicyGradient
from rlpt.registry import register


@register("algorithm", "task_role")
@dataclass(frozen=True)
class TaskRole(ClippedPolicyGradient):
    """A = (r - mean) / std over all trajectories of the same task and role in a play; clip 0.2 and 0.28, dual clip at
    3, mean over all tokens, no KL: the settings of its 7B script.

    For proposers and solvers, of whom a problem may have one each: it needs no peers. A role that came up once in a
    play learns nothing from it. The formula is the paper's, over trajectories; its code takes mean and std over tokens.
    """

    clip_high: float = 0.28
    truncate: float = 3.0

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        keys = [f"{task}/{role}" for task, role in zip(outcomes.tasks, outcomes.roles, strict=True)]
        return estimators.normalise_by_key(outcomes.rewards, keys)
