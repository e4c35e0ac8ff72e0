"""Trajectories -> batches of one packed row each, without padding: views side by side, each its own attention segment,
and those of one prompt as branches behind it (rlpt/rollout/trees.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from rlpt.batch import Batch
from rlpt.rollout.trees import Place, Tree, arrange, places, share_out
from rlpt.types import Trajectory


@dataclass(frozen=True)
class RowShape:
    """What all rows of a source have in common."""

    sequence_length: int  # positions that a view, and a tree of views, has at most
    vocab_size: int
    pad_id: int
    multiple: int = 1  # rows are padded to a multiple of so many positions


CANDIDATES = "candidates"
COLUMNS = ("advantages", "behavior_logprobs", "episode_rewards", "sequence_share")  # of every played batch


def pack(
    trajectories: Sequence[Trajectory],
    objective: str,
    num_microbatches: int,
    shape: RowShape,
    columns: Sequence[str] = COLUMNS,
    share_prompt: bool = True,
) -> list[Batch]:
    """Exactly `num_microbatches` batches of one row that together hold every trajectory, of nearly the same length.

    A view of L tokens takes L - 1 positions (its last token is only a label), less those that it shares with others.
    A batch that nothing is left for has a masked row. `columns`: the float tensors that the batches carry;
    ref_logprobs, values and returns may be among them, and candidates, which brings their ids and weights. With
    `share_prompt` views that begin alike stand behind one copy of what comes before their first action.
    """
    rows = share_out(arrange(trajectories, shape.sequence_length, share_prompt), num_microbatches)
    temperature = one_temperature(trajectories)
    return [fill(row, objective, shape, temperature, columns) for row in rows]


def spread(row: Sequence[Tree], values: torch.Tensor, into: Mapping[int, np.ndarray]) -> None:
    """Puts values [1, T] of labels, laid out as `fill` does, to their tokens: `into` maps id(trajectory) to its array
    [L]. Only fresh actions are written."""
    table = values[0].cpu().numpy()
    for place in places(row):
        if place.is_stem:
            continue
        here = slice(place.column, place.column + place.length)
        labelled, actions = _labels(place)
        target = into[id(place.view.trajectory)]
        target[labelled] = np.where(actions, table[here], target[labelled])


def _labels(place: Place) -> tuple[slice, np.ndarray]:
    """The tokens that are a place's labels, and which of them are actions that count there."""
    first = place.view.start + place.begin + 1
    return slice(first, first + place.length), place.view.actions[place.begin : place.begin + place.length]


def one_temperature(trajectories: Sequence[Trajectory]) -> float:
    """The temperature that all of them were sampled at (1 for none)."""
    temperatures = {item.temperature for item in trajectories}
    assert len(temperatures) <= 1, f"one temperature an objective, found {sorted(temperatures)}"
    return temperatures.pop() if temperatures else 1.0


def fill(
    row: Sequence[Tree],
    objective: str,
    shape: RowShape,
    temperature: float,
    columns: Sequence[str] = COLUMNS,
) -> Batch:
    """A Batch of one row that holds `row`."""
    length = max(1, sum(tree.size for tree in row))
    size = (1, -(-length // shape.multiple) * shape.multiple)
    tokens, labels = np.full(size, shape.pad_id), np.full(size, shape.pad_id)
    positions, segments, parents = np.zeros(size, dtype=np.int64), np.full(size, -1), np.full(size, -1)
    mask, legal_index = np.zeros(size, dtype=bool), np.zeros(size, dtype=np.int64)
    policy_steps = np.zeros(size, dtype=np.int64)
    floats = {name: np.zeros(size, dtype=np.float32) for name in columns if name != CANDIDATES}
    searched = _Candidates(row, size) if CANDIDATES in columns else None
    legal = _LegalTable(shape.vocab_size)
    for place in places(row):
        trajectory, here = place.view.trajectory, (0, slice(place.column, place.column + place.length))
        labelled, actions = _labels(place)
        tokens[here] = trajectory.token_ids[labelled.start - 1 : labelled.stop - 1]
        labels[here] = trajectory.token_ids[labelled]
        positions[here] = np.arange(place.begin, place.begin + place.length)
        segments[here], parents[here] = place.segment, place.parent
        if place.is_stem:
            continue
        mask[here] = actions
        policy_steps[here] = steps_of(trajectory)[labelled] * actions
        for name, column in floats.items():
            column[here] = _column(name, trajectory, labelled) * actions
        if trajectory.kept_ids is not None:
            legal_index[here] = [legal.index(ids) for ids in trajectory.kept_ids[labelled]]
        if searched is not None:
            searched.put(place.column, trajectory, labelled)
    batch = Batch(
        objective=objective,
        tokens=torch.from_numpy(tokens),
        labels=torch.from_numpy(labels),
        positions=torch.from_numpy(positions),
        loss_mask=torch.from_numpy(mask),
        segments=torch.from_numpy(segments),
        parents=torch.from_numpy(parents) if (parents >= 0).any() else None,
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


def has_signal(trajectory: Trajectory) -> bool:
    """Whether any of its actions has an advantage."""
    if trajectory.token_advantages is None:
        return trajectory.advantage != 0
    return bool(trajectory.token_advantages[trajectory.action_mask].any())


def counts_of(silent: Sequence[Trajectory]) -> tuple[int, float]:
    """(tokens, trajectories) that those left out of the rows add to the divisors of a batch's means."""
    labels = [int(one.action_mask[1:].sum()) for one in silent]
    shares = [count / max(1, int(one.action_mask.sum())) for count, one in zip(labels, silent)]
    return sum(labels), sum(shares)


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
    """Candidates of a microbatch's labels: ids and weights [1, T, K], K as many as any label has; weight 0 is none."""

    def __init__(self, row: Sequence[Tree], size: tuple[int, int]) -> None:
        sets = [ids for tree in row for view in tree.views for ids in view.trajectory.candidates or ()]
        most = max((len(ids) for ids in sets if ids is not None), default=1)
        self.ids = np.zeros((*size, most), np.int64)
        self.weights = np.zeros((*size, most), np.float32)

    def put(self, start: int, trajectory: Trajectory, labelled: slice) -> None:
        if trajectory.candidates is None or trajectory.candidate_weights is None:
            return
        pairs = zip(trajectory.candidates[labelled], trajectory.candidate_weights[labelled], strict=True)
        for at, (ids, weights) in enumerate(pairs, start):
            if ids is not None and weights is not None:
                self.ids[0, at, : len(ids)] = ids
                self.weights[0, at, : len(ids)] = weights


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
