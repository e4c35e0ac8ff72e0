"""What falls on the single actions of a trajectory, for estimators that look inside it. n is the number of actions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rlpt.algorithms import advantage_estimators as estimators
from rlpt.algorithms.base import SumOverRanks
from rlpt.algorithms.functional import KLEstimator, kl_estimate
from rlpt.types import Trajectory


def action_rewards(trajectory: Trajectory) -> np.ndarray:
    """[n] f64 that sums to the trajectory's reward: its token rewards, and on the last action all the rest."""
    mask = trajectory.action_mask
    placed = np.zeros(len(mask)) if trajectory.token_rewards is None else trajectory.token_rewards
    rewards = placed[mask].astype(np.float64)
    rewards[-1:] += trajectory.reward - rewards.sum()
    return rewards


def action_kl(trajectory: Trajectory, estimator: KLEstimator) -> np.ndarray:
    """[n] f64 estimates of KL(sampler || reference), each from its action."""
    assert trajectory.ref_logprobs is not None, "a KL penalty in the reward needs the reference's log-probs"
    mask = trajectory.action_mask
    to_reference = trajectory.ref_logprobs[mask].astype(np.float64) - trajectory.logprobs[mask]
    return kl_estimate(torch.from_numpy(to_reference), estimator).numpy()


def spread(trajectory: Trajectory, values: np.ndarray) -> np.ndarray:
    """[n] values of the actions -> [L] f32, 0 off the action mask."""
    placed = np.zeros(len(trajectory.action_mask), dtype=np.float32)
    placed[trajectory.action_mask] = values
    return placed


def set_whitened(
    trajectories: Sequence[Trajectory], advantages: Sequence[np.ndarray], total: SumOverRanks, whiten: bool = True
) -> None:
    """Fills `token_advantages` from [n] arrays, whitened over all actions of all ranks. All ranks must call it."""
    flat = np.concatenate([np.zeros(0), *advantages])
    if whiten:
        flat = estimators.whiten(flat, total)
    ends = np.cumsum([len(part) for part in advantages])
    for trajectory, part in zip(trajectories, np.split(flat, ends[:-1]) if len(ends) else []):
        trajectory.token_advantages = spread(trajectory, part)
