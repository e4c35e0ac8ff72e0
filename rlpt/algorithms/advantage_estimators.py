"""Rewards -> advantages, as pure functions of arrays.

Rewards r [N] f64; `peers` [N] i64 names the set that each is compared with. A set whose rewards are all equal gets
advantages of exactly 0 (not of rounding size): rewards are taken relative to the least of their set first, so
that a later division by a standard deviation can't blow rounding up into a signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def group_mean_baseline(rewards: np.ndarray, peers: np.ndarray) -> np.ndarray:
    """A_i = r_i - mean of i's set (GRPO without its division, 2402.03300; Dr. GRPO, 2503.20783).

    The mean holds r_i itself, which shrinks the expected gradient by (n - 1) / n. Fails for a set of one: A = 0
    whatever the reward, hence ValueError.
    """
    inverse, sizes, relative, _ = _sets(rewards, peers)
    return relative - (np.bincount(inverse, relative, len(sizes)) / sizes)[inverse]


def leave_one_out(rewards: np.ndarray, peers: np.ndarray) -> np.ndarray:
    """A_i = r_i - mean of the others in i's set (RLOO: Kool et al. 2019; 2402.14740); unbiased.

    Equals n / (n - 1) times `group_mean_baseline`, the form that RLP prints. Fails for a set of one (there are no
    others): ValueError.
    """
    inverse, sizes, relative, _ = _sets(rewards, peers)
    total = np.bincount(inverse, relative, len(sizes))[inverse]
    return relative - (total - relative) / (sizes[inverse] - 1)


def group_normalise(rewards: np.ndarray, peers: np.ndarray, divide_by_std: bool, eps: float = 1e-6) -> np.ndarray:
    """A_i = (r_i - mean) / (std + eps) over i's set (GRPO, 2402.03300, section 4.1.2); std is the population's.

    Without `divide_by_std` it is `group_mean_baseline` (Dr. GRPO, 2503.20783: the division weighs problems that are
    almost always or almost never solved above those in the middle). With it, a set whose rewards differ by little
    more than `eps` gets advantages as large as any other: graded rewards with small noise become large noise.
    """
    advantages = group_mean_baseline(rewards, peers)
    if not divide_by_std:
        return advantages
    inverse, sizes, _, _ = _sets(rewards, peers)
    deviation = np.sqrt(np.bincount(inverse, advantages**2, len(sizes)) / sizes)
    return advantages / (deviation[inverse] + eps)


def maximum_likelihood(rewards: np.ndarray, peers: np.ndarray) -> np.ndarray:
    """A_i = (r_i - mean) / mean over i's set, 0 where the mean is 0 (MaxRL, Tajwar et al. 2602.02710).

    For rewards of 0 and 1 it estimates the gradient of log(success rate), not of the success rate: a problem solved
    once in n attempts weighs n times one that is always solved. Fails for negative rewards, whose mean says nothing
    of success: ValueError.
    """
    if rewards.size and rewards.min() < 0:
        raise ValueError(
            f"maxrl divides by the mean reward, so none may be below 0; the one at {int(rewards.argmin())} is "
            f"{rewards.min():g}: take penalties out of the rubric, or use rloo or grpo"
        )
    inverse, sizes, relative, least = _sets(rewards, peers)
    mean = np.bincount(inverse, relative, len(sizes)) / sizes
    scale = mean + least
    return (relative - mean[inverse]) / np.where(scale > 0, scale, 1.0)[inverse]


def running_baseline(rewards: np.ndarray, keys: Sequence[str], baselines: dict[str, float], decay: float) -> np.ndarray:
    """A_i = r_i - b[key_i], and only then b <- decay b + (1 - decay) r for each reward of the key; `baselines` is moved
    on in place, and a new key starts at 0 (RAE of SPIRAL, 2506.24119).

    The paper's formula moves b first, which makes b depend on r_i and shrinks A_i by `decay`; its code reads first.
    All rewards of a call read the same b, which then moves as far as their mean, taken once for each of them, would
    move it: so nothing depends on the order in which ranks hold them. Until about 1 / (1 - decay) rewards of a key have
    been seen, b lags behind and A holds part of the mean.
    """
    require_finite(rewards)
    names, inverse, sizes = np.unique(np.asarray(keys, dtype=np.str_), return_inverse=True, return_counts=True)
    means = np.bincount(inverse, rewards, len(names)) / sizes
    before = np.array([baselines.setdefault(str(name), 0.0) for name in names])
    for name, old, mean, size in zip(names, before, means, sizes):
        kept = decay ** int(size)
        baselines[str(name)] = float(kept * old + (1 - kept) * mean)
    return rewards - before[inverse] if len(names) else np.zeros(0)


def normalise_by_key(rewards: np.ndarray, keys: Sequence[str], eps: float = 1e-6) -> np.ndarray:
    """A_i = (r_i - mean) / (std + eps) over all trajectories of i's key (TRR++ of AZR, 2505.03335, with task and role).

    What a step draws decides who is in a set, so a key that came up once gets 0 instead of an error; where that
    is so of every key, nothing would be learnt: ValueError.
    """
    require_finite(rewards)
    sets = np.unique(np.asarray(keys, dtype=np.str_), return_inverse=True)[1]
    paired = (np.bincount(sets) > 1)[sets] if len(sets) else np.zeros(0, bool)
    if len(sets) and not paired.any():
        raise ValueError(
            f"each of the {len(sets)} trajectories is the only one of its task and role: nothing to compare it with; "
            "play more of each"
        )
    advantages = np.zeros(len(rewards))
    advantages[paired] = group_normalise(rewards[paired], sets[paired], divide_by_std=True, eps=eps)
    return advantages


def returns_to_go(rewards: np.ndarray) -> np.ndarray:
    """[n] rewards of one trajectory's actions -> [n] sums from each action on, without discount."""
    return np.cumsum(rewards[::-1])[::-1]


def generalised_advantages(
    rewards: np.ndarray, values: np.ndarray, gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
    """(advantages, returns), each [n] f64, of one trajectory's n actions (GAE, Schulman et al. 1506.02438, eq. 16).

    delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}, return_t = A_t + V_t; V_t is of the
    state before action t, the state after it is the one before the next action, and after the last there is nothing
    (V = 0), also where the trajectory was cut for its length: that is right where the cut counts as a failure.
    """
    assert rewards.shape == values.shape, f"{rewards.shape} rewards, {values.shape} values"
    advantages = np.zeros(len(rewards))
    following_value = following = 0.0
    for index in reversed(range(len(rewards))):
        delta = rewards[index] + gamma * following_value - values[index]
        following = delta + gamma * lam * following
        advantages[index], following_value = following, values[index]
    return advantages, advantages + values


def whiten(values: np.ndarray, total: Callable[[np.ndarray], np.ndarray], eps: float = 1e-6) -> np.ndarray:
    """(x - mean) / (std + eps) of this rank's [n] values, mean and population std over all ranks' values.

    `total` sums arrays over ranks and is called twice, also by a rank that has no values. Fails (all become 0 but for
    rounding) where all values are equal.
    """
    count, summed = total(np.array([len(values), values.sum()]))
    centred = values - summed / max(count, 1.0)
    variance = total(np.array([(centred**2).sum()]))[0] / max(count, 1.0)
    return centred / (np.sqrt(variance) + eps)


def require_finite(rewards: np.ndarray) -> None:
    """Raises ValueError that says which reward isn't finite."""
    if not np.isfinite(rewards).all():
        raise ValueError(f"rewards must be finite; the one at {int(np.argmin(np.isfinite(rewards)))} is not")


def _sets(rewards: np.ndarray, peers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(set number [N], set sizes [G], rewards relative to the least of their set [N], the least of each set [G])."""
    assert rewards.shape == peers.shape, f"{rewards.shape} rewards, {peers.shape} peers"
    require_finite(rewards)
    ids, inverse, sizes = np.unique(peers, return_inverse=True, return_counts=True)
    if (sizes == 1).any():
        raise ValueError(
            f"set {ids[np.argmax(sizes == 1)]} has one member: relative to its own mean every reward is worth 0 and "
            "nothing would be learnt; play at least 2 attempts a problem, or use reinforce with baseline: none"
        )
    least = np.full(len(ids), np.inf)
    np.minimum.at(least, inverse, rewards)
    return inverse, sizes, rewards - least[inverse], least
