"""Trajectories -> packed rows: several of their views a row, each its own attention segment.

A view is a stretch of a trajectory as the policy saw it: the whole of it, or, for one that was played through a window,
one view for each place where the window began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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


@dataclass(frozen=True)
class RowShape:
    """What all rows of a source have in common."""

    sequence_length: int
    vocab_size: int
    pad_id: int


CANDIDATES = "candidates"
COLUMNS = ("advantages", "behavior_logprobs", "episode_rewards", "sequence_share")  # of every played batch


def pack(
    trajectories: Sequence[Trajectory],
    objective: str,
    num_microbatches: int,
    shape: RowShape,
    columns: Sequence[str] = COLUMNS,
) -> list[Batch]:
    """Exactly `num_microbatches` batches of rows of `sequence_length` positions that together hold every trajectory.

    A view of L tokens takes L - 1 positions (its last token is only a label). Rows are filled longest first into the
    first row with room. Every microbatch has the same number of rows; rows left over are masked. `columns`: the float
    tensors that the batches carry; ref_logprobs, values and returns may be among them, and candidates, which brings
    their ids and weights.
    """
    rows = arrange(trajectories, shape.sequence_length)
    rows_each = max(1, -(-len(rows) // num_microbatches))
    temperature = one_temperature(trajectories)
    parts = (rows[index * rows_each : (index + 1) * rows_each] for index in range(num_microbatches))
    return [fill(part, rows_each, objective, shape, temperature, columns) for part in parts]


def arrange(trajectories: Sequence[Trajectory], sequence_length: int) -> list[list[View]]:
    """Rows of views. Raises ConfigError for a view that fits no row."""
    items = [view for trajectory in trajectories for view in views(trajectory)]
    rows = _first_fit([view.stop - view.start - 1 for view in items], sequence_length)
    return [[items[item] for item in row] for row in rows]


def spread(rows: Sequence[Sequence[View]], values: torch.Tensor, into: Mapping[int, np.ndarray]) -> None:
    """Puts values [B, T] of labels, laid out as `fill` does, to their tokens: `into` maps id(trajectory) to its array
    [L]. Only fresh actions are written."""
    table = values.cpu().numpy()
    for row, items in enumerate(rows):
        start = 0
        for view in items:
            stop = start + view.stop - view.start - 1
            labelled, actions = _labels(view)
            target = into[id(view.trajectory)]
            target[labelled] = np.where(actions, table[row, start:stop], target[labelled])
            start = stop


def _labels(view: View) -> tuple[slice, np.ndarray]:
    """The tokens of a view that are labels, and which of them are actions that count here."""
    labelled = slice(view.start + 1, view.stop)
    fresh = np.arange(labelled.start, labelled.stop) >= view.fresh
    return labelled, view.trajectory.action_mask[labelled] & fresh


def _first_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room: list[int] = []
    open_rows: list[int] = []  # those in which something still fits
    least = min(sizes, default=0)
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if sizes[item] > capacity:
            raise ConfigError(
                f"an episode of {sizes[item] + 1} tokens does not fit batch.sequence_length={capacity}; "
                "raise it, lower the task's level, or play through a shorter window"
            )
        row = next((r for r in open_rows if room[r] >= sizes[item]), -1)
        if row < 0:
            row = len(rows)
            rows.append([])
            room.append(capacity)
            open_rows.append(row)
        rows[row].append(item)
        room[row] -= sizes[item]
        if room[row] < max(least, 1):
            open_rows.remove(row)
    return rows


def one_temperature(trajectories: Sequence[Trajectory]) -> float:
    """The temperature that all of them were sampled at (1 for none)."""
    temperatures = {item.temperature for item in trajectories}
    assert len(temperatures) <= 1, f"one temperature an objective, found {sorted(temperatures)}"
    return temperatures.pop() if temperatures else 1.0


def fill(
    rows: Sequence[Sequence[View]],
    num_rows: int,
    objective: str,
    shape: RowShape,
    temperature: float,
    columns: Sequence[str] = COLUMNS,
) -> Batch:
    """A Batch of `num_rows` rows, the first of which hold `rows`."""
    size = (num_rows, shape.sequence_length)
    tokens, labels = np.full(size, shape.pad_id), np.full(size, shape.pad_id)
    positions, segments = np.zeros(size, dtype=np.int64), np.full(size, -1)
    mask, legal_index = np.zeros(size, dtype=bool), np.zeros(size, dtype=np.int64)
    policy_steps = np.zeros(size, dtype=np.int64)
    floats = {name: np.zeros(size, dtype=np.float32) for name in columns if name != CANDIDATES}
    searched = _Candidates(rows, size) if CANDIDATES in columns else None
    legal = _LegalTable(shape.vocab_size)
    for row, items in enumerate(rows):
        start = 0
        for segment, view in enumerate(items):
            trajectory = view.trajectory
            here = slice(start, start + view.stop - view.start - 1)
            labelled, actions = _labels(view)
            tokens[row, here] = trajectory.token_ids[view.start : view.stop - 1]
            labels[row, here] = trajectory.token_ids[labelled]
            positions[row, here] = np.arange(here.stop - start)
            segments[row, here] = segment
            mask[row, here] = actions
            policy_steps[row, here] = steps_of(trajectory)[labelled] * actions
            for name, column in floats.items():
                column[row, here] = _column(name, trajectory, labelled) * actions
            if trajectory.kept_ids is not None:
                legal_index[row, here] = [legal.index(ids) for ids in trajectory.kept_ids[labelled]]
            if searched is not None:
                searched.put(row, start, trajectory, labelled)
            start = here.stop
    batch = Batch(
        objective=objective,
        tokens=torch.from_numpy(tokens),
        labels=torch.from_numpy(labels),
        positions=torch.from_numpy(positions),
        loss_mask=torch.from_numpy(mask),
        segments=torch.from_numpy(segments),
        policy_steps=torch.from_numpy(policy_steps),
        legal_table=legal.table() if legal.sets else None,
        legal_index=torch.from_numpy(legal_index) if legal.sets else None,
        temperature=temperature,
    )
    tensors: dict[str, Any] = {name: torch.from_numpy(column) for name, column in floats.items()}
    if searched is not None:
        tensors["candidates"] = torch.from_numpy(searched.ids)
        tensors["candidate_weights"] = torch.from_numpy(searched.weights)
    return replace(batch, **tensors)


def steps_of(trajectory: Trajectory) -> np.ndarray:
    """[L] i64: optimizer steps done by the weights that sampled each action; off the actions it does not matter."""
    if trajectory.policy_steps is None:
        return np.full(len(trajectory.token_ids), trajectory.policy_step, dtype=np.int64)
    return trajectory.policy_steps


def _column(name: str, trajectory: Trajectory, labelled: slice) -> np.ndarray | float:
    """What a float tensor of a batch holds of a trajectory's labels; off the actions it does not matter."""
    if name == "advantages":
        tokens = trajectory.token_advantages
        return trajectory.advantage if tokens is None else tokens[labelled]
    if name == "episode_rewards":
        return trajectory.reward
    if name == "sequence_share":
        return 1.0 / max(1, int(trajectory.action_mask.sum()))
    array: np.ndarray = getattr(trajectory, "logprobs" if name == "behavior_logprobs" else name)
    return array[labelled]


class _Candidates:
    """Candidates of a microbatch's labels: ids and weights [B, T, K], K as many as any label has; weight 0 is none."""

    def __init__(self, rows: Sequence[Sequence[View]], size: tuple[int, int]) -> None:
        sets = [ids for items in rows for view in items for ids in view.trajectory.candidates or ()]
        most = max((len(ids) for ids in sets if ids is not None), default=1)
        self.ids = np.zeros((*size, most), np.int64)
        self.weights = np.zeros((*size, most), np.float32)

    def put(self, row: int, start: int, trajectory: Trajectory, labelled: slice) -> None:
        if trajectory.candidates is None or trajectory.candidate_weights is None:
            return
        pairs = zip(trajectory.candidates[labelled], trajectory.candidate_weights[labelled], strict=True)
        for at, (ids, weights) in enumerate(pairs, start):
            if ids is not None and weights is not None:
                self.ids[row, at, : len(ids)] = ids
                self.weights[row, at, : len(ids)] = weights


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
