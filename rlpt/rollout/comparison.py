"""Rewards of one play become advantages: all ranks' episodes side by side, then each rank's own tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlpt.algorithms.base import Baselines, Outcomes
from rlpt.batch import SourceContext
from rlpt.rollout.ranks import in_turn
from rlpt.types import Episode, Trajectory

Plays = list[tuple[str, int, float]]  # (task, level, success) of every episode


def compare(
    episodes: list[Episode],
    context: SourceContext,
    baselines: Baselines,
    cuts: Sequence[str] = (),
    counts: Mapping[str, float] | None = None,
) -> tuple[dict[str, float], Plays]:
    """Sets the advantages of this rank's trajectories. Returns figures over all ranks, and all plays with an outcome in
    problem order. Among the figures are the shares of the trajectories that the budgets `cuts` cut short, and the sums
    over ranks of this rank's `counts`. What travels, travels at once: ranks that wait for each other wait once.

    Problems that go on in a later play are among the episodes too, so that each rank's problems are counted off in the
    same order; where no rank's episodes are over, there is nothing to compare and there are no means.

    Tensor-parallel ranks play the same episodes; where a verifier's verdict can hang on a limit of time, the first
    rank's counts on all of them.
    """
    algorithm = context.algorithm
    trajectories = [trajectory for episode in episodes for trajectory in episode.trajectories]
    tasks = [episode.problem.task for episode in episodes for _ in episode.trajectories]
    plays: dict[int, Plays] = {id(episode.problem): [] for episode in episodes}
    for episode in episodes:
        if episode.outcome and episode.is_measured:
            success = float(all(score == 1.0 for score in episode.outcome.values()))
            plays[id(episode.problem)].append((episode.problem.task, episode.problem.level, success))
    lengths = [int(np.count_nonzero(one.action_mask)) for one in trajectories]
    rows = [
        (algorithm.reward(t), t.peers, t.role, task, length, t.truncated, t.rewards, t.reward, t.cut)
        for t, task, length in zip(trajectories, tasks, lengths)
    ]
    *own, token_rewards = context.agree((list(plays.values()), rows, [one.token_rewards for one in trajectories]))
    for trajectory, row, of_tokens in zip(trajectories, own[1], token_rewards, strict=True):
        trajectory.rewards, trajectory.reward, trajectory.token_rewards = row[6], row[7], of_tokens
    gathered = context.gather((*own, {**_counts(episodes), **(counts or {})}))
    every_row = [row for _, part, _ in gathered for row in part]
    if every_row:
        first = sum(len(part) for _, part, _ in gathered[: context.data_rank])
        _give_advantages(every_row, trajectories, first, context, baselines)
    every_play = in_turn([part for part, _, _ in gathered])
    figures = _figures(every_row, cuts)
    counted = [part for _, _, part in gathered]
    totals = {name: float(sum(part[name] for part in counted)) for name in counted[0]}
    read = totals.pop("search_prompt_tokens")
    if any(part["search_tokens"] or part["search_prompt_tokens"] for part in counted):
        figures["tokens"] += totals["search_tokens"]
        totals["prompt_tokens"] += read
    else:
        del totals["search_tokens"]
    figures |= totals
    if every_play:
        figures["success"] = float(np.mean([play[2] for play in every_play]))
    return figures, every_play


def _give_advantages(
    rows: list[tuple[Any, ...]],
    trajectories: list[Trajectory],
    first: int,
    context: SourceContext,
    baselines: Baselines,
) -> None:
    """To this rank's trajectories, the `first` of which is that one of all ranks' `rows`."""
    rewards = np.array([row[0] for row in rows], dtype=np.float64)
    peers = np.array([row[1] for row in rows], dtype=np.int64)
    outcomes = Outcomes(rewards, peers, [row[2] for row in rows], [row[3] for row in rows])
    advantages = context.algorithm.advantages(outcomes, baselines)
    for trajectory, advantage in zip(trajectories, advantages[first : first + len(trajectories)]):
        trajectory.advantage = float(advantage)
    context.algorithm.credit(trajectories, lambda values: np.sum(context.gather(values), axis=0))


def _counts(episodes: list[Episode]) -> dict[str, float]:
    """Of this rank: episodes that are over (others go on in a later play), tokens that were read and not chosen, each
    set of peers' common prompt once, and what searches generated and read beyond the trajectories."""
    prompts = {
        trajectory.peers: len(trajectory.action_mask) - int(np.count_nonzero(trajectory.action_mask))
        for episode in episodes
        for trajectory in episode.trajectories
    }
    return {
        "episodes": sum(bool(one.trajectories) or one.is_measured for one in episodes),
        "prompt_tokens": sum(prompts.values()),
        "search_tokens": sum(episode.searched[0] for episode in episodes),
        "search_prompt_tokens": sum(episode.searched[1] for episode in episodes),
    }


def _figures(rows: list[tuple[Any, ...]], cuts: Sequence[str]) -> dict[str, float]:
    """Figures of one play over all ranks; no means where there was nothing."""
    if not rows:
        return {"tokens": 0.0}
    raw = np.array([row[7] for row in rows])
    rewards: dict[int, set[float]] = {}
    for row in rows:
        rewards.setdefault(row[1], set()).add(row[7])
    figures = {
        "tokens": float(sum(row[4] for row in rows)),
        "reward": float(raw.mean()),
        "signal": float(np.mean([len(values) > 1 for values in rewards.values()])),
        "length": float(np.mean([row[4] for row in rows])),
        "truncated": float(np.mean([row[5] for row in rows])),
    }
    for cut in cuts:
        figures[f"cut/{cut}"] = float(np.mean([row[8] == cut for row in rows]))
    for part in rows[0][6]:
        figures[f"reward/{part}"] = float(np.mean([row[6][part] for row in rows]))
    return figures
