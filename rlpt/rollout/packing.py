"""Trajectories -> packed rows: several trajectories a row, each its own attention segment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rlpt.batch import Batch
from rlpt.errors import ConfigError
from rlpt.types import Trajectory


def pack(
    trajectories: Sequence[Trajectory],
    objective: str,
    num_microbatches: int,
    sequence_length: int,
    vocab_size: int,
    pad_id: int,
) -> list[Batch]:
    """Exactly `num_microbatches` batches of rows of `sequence_length` positions that together hold every trajectory.

    A trajectory of L tokens takes L - 1 positions (its last token is only a label). Rows are filled longest first
    into the first row with room. Every microbatch has the same number of rows; rows left over are masked.
    """
    rows = _first_fit([len(item.token_ids) - 1 for item in trajectories], sequence_length)
    rows_each = max(1, -(-len(rows) // num_microbatches))
    temperature = _one_temperature(trajectories)
    batches = []
    for index in range(num_microbatches):
        part = rows[index * rows_each : (index + 1) * rows_each]
        batches.append(
            _fill(part, rows_each, trajectories, objective, sequence_length, vocab_size, pad_id, temperature)
        )
    return batches


def _first_fit(sizes: Sequence[int], capacity: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        if sizes[item] > capacity:
            raise ConfigError(
                f"an episode of {sizes[item] + 1} tokens does not fit batch.sequence_length={capacity}; "
                "raise it or lower the task's level"
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
    trajectories: Sequence[Trajectory],
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
            trajectory = trajectories[item]
            here = slice(start, start + len(trajectory.token_ids) - 1)
            tokens[row, here] = trajectory.token_ids[:-1]
            labels[row, here] = trajectory.token_ids[1:]
            positions[row, here] = np.arange(here.stop - start)
            segments[row, here] = segment
            mask[row, here] = trajectory.action_mask[1:]
            behavior[row, here] = trajectory.logprobs[1:]
            advantages[row, here] = trajectory.advantage * trajectory.action_mask[1:]
            if trajectory.kept_ids is not None:
                legal_index[row, here] = [legal.index(ids) for ids in trajectory.kept_ids[1:]]
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
