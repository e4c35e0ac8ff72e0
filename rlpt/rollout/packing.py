"""Trajectories -> packed rows: several of their views a row, each its own attention segment.

A view is a stretch of a trajectory as the policy saw it: the whole of it, or, for one that was played through a window,
one view for each place where the window began.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rlpt.batch import Batch
from rlpt.errors import ConfigError
from rlpt.types import Trajectory


@dataclass(frozen=True)
class View:
    """Tokens [start, stop) of a trajectory; those before `fresh` are context here, whatever the policy chose there."""

    trajectory: Trajectory
    start: int
    fresh: int
    stop: int


def views(trajectory: Trajectory) -> list[View]:
    """What the policy saw when it chose: together the views hold each action once as fresh."""
    windows = trajectory.windows or ((0, len(trajectory.token_ids)),)
    fresh = [0, *(stop for _, stop in windows)]
    return [View(trajectory, start, begin, stop) for begin, (start, stop) in zip(fresh, windows)]


def pack(
    trajectories: Sequence[Trajectory],
    objective: str,
    num_microbatches: int,
    sequence_length: int,
    vocab_size: int,
    pad_id: int,
) -> list[Batch]:
    """Exactly `num_microbatches` batches of rows of `sequence_length` positions that together hold every trajectory.

    A view of L tokens takes L - 1 positions (its last token is only a label). Rows are filled longest first into the
    first row with room. Every microbatch has the same number of rows; rows left over are masked.
    """
    items = [view for trajectory in trajectories for view in views(trajectory)]
    rows = _first_fit([view.stop - view.start - 1 for view in items], sequence_length)
    rows_each = max(1, -(-len(rows) // num_microbatches))
    temperature = _one_temperature(trajectories)
    batches = []
    for index in range(num_microbatches):
        part = rows[index * rows_each : (index + 1) * rows_each]
        batches.append(_fill(part, rows_each, items, objective, sequence_length, vocab_size, pad_id, temperature))
    return batches


def _first_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if sizes[item] > capacity:
            raise ConfigError(
                f"an episode of {sizes[item] + 1} tokens does not fit batch.sequence_length={capacity}; "
                "raise it, lower the task's level, or play through a shorter window"
            )
        row = next((r for r, left in enumerate(room) if left >= sizes[item]), -1)
        if row < 0:
            rows.append([])
            room.append(capacity)
        rows[row].append(item)
        room[row] -= sizes[item]
    return rows


def _one_temperature(trajectories: Sequence[Trajectory]) -> float:
    temperatures = {item.temperature for item in trajectories}
    assert len(temperatures) <= 1, f"one temperature an objective, found {sorted(temperatures)}"
    return temperatures.pop() if temperatures else 1.0


def _fill(
    rows: Sequence[Sequence[int]],
    num_rows: int,
    views: Sequence[View],
    objective: str,
    length: int,
    vocab_size: int,
    pad_id: int,
    temperature: float,
) -> Batch:
    shape = (num_rows, length)
    tokens, labels = np.full(shape, pad_id), np.full(shape, pad_id)
    positions, segments = np.zeros(shape, dtype=np.int64), np.full(shape, -1)
    mask, legal_index = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.int64)
    advantages, behavior = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.float32)
    legal = _LegalTable(vocab_size)
    for row, items in enumerate(rows):
        start = 0
        for segment, item in enumerate(items):
            view = views[item]
            trajectory = view.trajectory
            here = slice(start, start + view.stop - view.start - 1)
            labelled = slice(view.start + 1, view.stop)
            actions = trajectory.action_mask[labelled] & (np.arange(labelled.start, labelled.stop) >= view.fresh)
            tokens[row, here] = trajectory.token_ids[view.start : view.stop - 1]
            labels[row, here] = trajectory.token_ids[labelled]
            positions[row, here] = np.arange(here.stop - start)
            segments[row, here] = segment
            mask[row, here] = actions
            behavior[row, here] = trajectory.logprobs[labelled] * actions
            advantages[row, here] = trajectory.advantage * actions
            if trajectory.kept_ids is not None:
                legal_index[row, here] = [legal.index(ids) for ids in trajectory.kept_ids[labelled]]
            start = here.stop
    return Batch(
        objective=objective,
        tokens=torch.from_numpy(tokens),
        labels=torch.from_numpy(labels),
        positions=torch.from_numpy(positions),
        loss_mask=torch.from_numpy(mask),
        segments=torch.from_numpy(segments),
        advantages=torch.from_numpy(advantages),
        behavior_logprobs=torch.from_numpy(behavior),
        legal_table=legal.table() if legal.sets else None,
        legal_index=torch.from_numpy(legal_index) if legal.sets else None,
        temperature=temperature,
    )


class _LegalTable:
    """Distinct id sets of a microbatch; row 0 is the whole vocabulary."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.sets: dict[bytes, int] = {}

    def index(self, ids: np.ndarray | None) -> int:
        if ids is None:
            return 0
        return self.sets.setdefault(np.asarray(ids, dtype=np.int64).tobytes(), len(self.sets) + 1)

    def table(self) -> torch.Tensor:
        table = torch.zeros(len(self.sets) + 1, self.vocab_size, dtype=torch.bool)
        table[0] = True
        for ids, row in self.sets.items():
            table[row, np.frombuffer(ids, dtype=np.int64).copy()] = True
        return table
