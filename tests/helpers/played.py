"""Small played trajectories, batches and scores with numbers chosen by the test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rlpt.algorithms.base import Algorithm, Outcomes
from rlpt.batch import Batch, Scores
from rlpt.types import Trajectory


def outcomes(rewards, peers=None, roles=None, tasks=None) -> Outcomes:
    """One set of peers of one role in one task, where nothing else is said."""
    size = len(rewards)
    return Outcomes(
        np.asarray(rewards, np.float64),
        np.zeros(size, np.int64) if peers is None else np.asarray(peers),
        roles or ["solver"] * size,
        tasks or ["task"] * size,
    )


def trajectory(mask: Sequence[int], reward: float = 0.0, **columns: Sequence[float] | float) -> Trajectory:
    """A trajectory with the action mask `mask`; lists become arrays [L]."""
    size = len(mask)
    arrays = {
        name: np.asarray(value, np.float32) if isinstance(value, list) else value for name, value in columns.items()
    }
    logprobs = arrays.pop("logprobs", np.zeros(size, np.float32))
    return Trajectory(
        "solver", 0, np.arange(size), np.array(mask, dtype=bool), logprobs=logprobs, reward=reward, **arrays
    )


def played(new, ratios, advantages, mask=None, segments=None, values=None, entropy=0.5, **columns):
    """(Scores, Batch) of rows of the policy's log-probs `new`, which the sampler held `ratios` times less likely.

    A segment is a trajectory, and a row one segment, where nothing else is said. Lists become f32 tensors.
    """
    new, ratios = torch.tensor(new), torch.tensor(ratios)
    ids = torch.zeros(new.shape, dtype=torch.int64)
    mask = torch.ones(new.shape, dtype=torch.bool) if mask is None else torch.tensor(mask, dtype=torch.bool)
    segments = ids if segments is None else torch.tensor(segments)
    tensors = {key: torch.tensor(value) if isinstance(value, list) else value for key, value in columns.items()}
    if "sequence_share" not in tensors:
        same = (segments[:, :, None] == segments[:, None, :]) & mask[:, None, :]
        tensors["sequence_share"] = 1 / same.sum(-1).clamp(min=1)
    batch = Batch(
        "play",
        ids,
        ids,
        ids,
        mask,
        segments,
        advantages=torch.tensor(advantages),
        behavior_logprobs=new - ratios.log(),
        **tensors,
    )
    scores = Scores(
        new.clone().requires_grad_(),
        torch.full(new.shape, entropy, requires_grad=True),
        values=None if values is None else torch.tensor(values, requires_grad=True),
    )
    return scores, batch


def evaluate(algorithm: Algorithm, scores: Scores, batch: Batch):
    """(total, gradient of the log-probs as rows, metrics, maxima) as plain numbers; nothing reported has a graph."""
    terms = algorithm(scores, batch)
    terms.total.backward()
    reported = [*terms.metrics.values(), *terms.maxima.values()]
    assert not any(value.requires_grad for value in reported)
    return (
        terms.total.item(),
        scores.logprobs.grad.tolist(),
        {key: value.item() for key, value in terms.metrics.items()},
        {key: value.item() for key, value in terms.maxima.items()},
    )


def one_rank(values: np.ndarray) -> np.ndarray:
    """The sum over ranks where there is one."""
    return values
