"""Trajectories, a scorer, ranks and a source's context, without a model."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from helpers.players import RandomGenerator
from helpers.tokenizer import CharacterTokenizer

import rlpt.rewards
import rlpt.selfplay
import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.algorithms.base import Algorithm, Baselines, LossTerms, Outcomes
from rlpt.algorithms.reinforce import Reinforce
from rlpt.batch import Batch, Scores, SourceContext
from rlpt.rollout.source import EpisodeSource
from rlpt.types import Trajectory

VOCABULARY = 50


def trajectory(index: int, length: int, before: int, kept: np.ndarray | None = None, **options: Any) -> Trajectory:
    """Tokens, log-probs and advantage that name the trajectory they are of; the policy chose all from `before` on."""
    rng = np.random.default_rng([index, length])
    actions = np.arange(length) >= before
    given: dict[str, Any] = {
        "role": "solver",
        "peers": 0,
        "token_ids": rng.integers(1, VOCABULARY, length),
        "action_mask": actions,
        "logprobs": np.where(actions, -index - np.arange(length) / 128, 0).astype(np.float32),
        "advantage": float(index + 1),
        "kept_ids": None if kept is None else (*[None] * before, *[kept] * (length - before)),
    }
    return Trajectory(**given | options)


def windowed(index: int, longest: int) -> Trajectory:
    """Turns at random places, each chosen through a window of at most `longest` tokens that moves on at random."""
    rng = np.random.default_rng([index, longest])
    length = int(rng.integers(longest + 2, 3 * longest))
    actions = np.arange(length) >= 1
    actions[1:] &= rng.random(length - 1) < 0.6
    actions[-1] = True
    windows, begin, stop = [], 0, 0
    while stop < length:
        fresh = stop
        begin = int(rng.integers(begin, fresh)) if fresh else 0
        begin = max(begin, fresh - longest // 2)
        stop = min(length, begin + longest, fresh + int(rng.integers(1, longest)))
        windows.append((begin, stop))
    logprobs = np.where(actions, -index - np.arange(length) / 128, 0).astype(np.float32)
    return trajectory(index, length, 1, action_mask=actions, logprobs=logprobs, windows=tuple(windows))


@dataclass
class TableScorer:
    """What a source's context has for the model: figures that hang on token, label and place in the segment alone, and
    on whose weights are asked. Remembers what it was asked."""

    asked: list[tuple[Batch, str]] = field(default_factory=list)

    def __call__(self, batch: Batch, weights: str = "") -> Scores:
        self.asked.append((batch, weights))
        salt, mask = sum(weights.encode()), batch.loss_mask
        logprobs = -((3 * batch.tokens + 5 * batch.labels + 7 * batch.positions + salt) % 17 + 1) / 8
        entropy = ((2 * batch.tokens + 5 * batch.positions + salt) % 13) / 13
        values = ((batch.tokens + 3 * batch.positions + salt) % 9 + 1) / 4 if batch.head else None
        off = torch.zeros(())
        return Scores(
            logprobs=torch.where(mask, logprobs, off),
            entropy=torch.where(mask, entropy, off),
            values=None if values is None else torch.where(mask, values, off),
        )

    @staticmethod
    def logprob(token: int, label: int, position: int, weights: str = "") -> float:
        """The same figure, of one label after the token at `position`."""
        return -((3 * token + 5 * label + 7 * position + sum(weights.encode())) % 17 + 1) / 8

    @staticmethod
    def value(token: int, position: int) -> float:
        """The training weights' value of the state after the token at `position`."""
        return ((token + 3 * position) % 9 + 1) / 4


@dataclass(frozen=True)
class Silent(Algorithm):
    """Gives every trajectory the advantage that its reward is; a base for algorithms of single tests."""

    def __call__(self, scores: Scores, batch: Batch) -> LossTerms:
        raise NotImplementedError

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        return outcomes.rewards.copy()


def source_context(**changes: Any) -> SourceContext:
    """One rank's, with a player that draws at random."""
    given: dict[str, Any] = {
        "objective": "play",
        "tokenizer": CharacterTokenizer(),
        "sequence_length": 64,
        "micro_batch_size": 4,
        "data_rank": 0,
        "data_size": 1,
        "seed": 5,
        "gather": lambda value: [value],
        "algorithm": Reinforce(),
        "generator": RandomGenerator(),
        "steps": 100,
        "score": TableScorer(),
    }
    return SourceContext(**given | changes)


def on_ranks(size: int, work: Callable[[int, Callable[[Any], list[Any]]], Any]) -> list[Any]:
    """`work(rank, gather)` on every rank of a data-parallel group, each in a thread; their results in rank order.

    What is gathered is copied, as it is between processes.
    """
    barrier, values = threading.Barrier(size, timeout=120), [b""] * size
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def main(rank: int) -> None:
        def gather(value: Any) -> list[Any]:
            values[rank] = pickle.dumps(value)
            barrier.wait()
            everyone = [pickle.loads(one) for one in values]
            barrier.wait()
            return everyone

        try:
            results[rank] = work(rank, gather)
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=main, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in sorted(errors, key=lambda one: isinstance(one, threading.BrokenBarrierError)):
        raise error
    return results


def text_before(batch: Batch, row: int, place: int) -> list[int]:
    """The tokens that a place of a row attends to, its own the last: what it goes on from, and its segment's past."""
    own = batch.segments[row, : place + 1]
    seen = own == batch.segments[row, place]
    if batch.parents is not None:
        seen |= (own >= 0) & (own == batch.parents[row, place])
    return batch.tokens[row, : place + 1][seen].tolist()


def assert_equal_batches(ours: list[Batch], theirs: list[Batch]) -> None:
    """Bit for bit, every field."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        for entry in fields(one):
            a, b = getattr(one, entry.name), getattr(other, entry.name)
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, entry.name


GROUPS, GROUP_SIZE = 8, 4
CURRICULUM = {"target_level": 3, "min_count": 6, "promote_at": 0.04, "demote_at": 0.01}
EPISODES: dict[str, Any] = {
    "name": "episodes",
    "groups": GROUPS,
    "selfplay": {"name": "solve", "group_size": GROUP_SIZE},
    "tasks": [
        {"task": {"name": "reverse"}, "weight": 2.0, "curriculum": CURRICULUM},
        {"task": {"name": "sort"}, "curriculum": CURRICULUM},
    ],
}


def open_episodes(context: SourceContext | None = None, **changes: Any) -> EpisodeSource:
    """A source of episodes of two easy tasks, whose levels move after a few right answers."""
    options = registry.create("source", EPISODES | changes, "objectives.play.source")
    source: EpisodeSource = options.open(context or source_context())
    return source


def episodes_on_ranks(size: int, work: Callable[[EpisodeSource, int], Any], **changes: Any) -> list[Any]:
    """`work(source, rank)` of such a source on every data-parallel rank."""

    def main(rank: int, gather: Callable[[Any], list[Any]]) -> Any:
        context = source_context(data_rank=rank, data_size=size, gather=gather)
        return work(open_episodes(context, **changes), rank)

    return on_ranks(size, main)
