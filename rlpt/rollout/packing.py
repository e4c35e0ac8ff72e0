"""Trajectories -> batches of one packed row each, without padding: views side by side, each its own attention segment,
and those of one prompt as branches behind it (rlpt/rollout/trees.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
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
    parts = list(places(row))
    layout = _Layout(parts)
    count = len(layout.mask)
    size = (1, -(-max(1, count) // shape.multiple) * shape.multiple)

    def padded(values: np.ndarray, pad: int, dtype: type) -> torch.Tensor:
        whole: np.ndarray = np.full(size, pad, dtype)
        whole[0, :count] = values
        return torch.from_numpy(whole)

    searched = _Candidates(row, size) if CANDIDATES in columns else None
    legal = _LegalTable(shape.vocab_size)
    legal_index = np.zeros(size, dtype=np.int64)
    for place in parts if searched is not None or layout.has_sets else ():
        trajectory, labelled = place.view.trajectory, _labels(place)[0]
        if not place.is_stem and trajectory.kept_ids is not None:
            here = slice(place.column, place.column + place.length)
            legal_index[0, here] = [legal.index(ids) for ids in trajectory.kept_ids[labelled]]
        if not place.is_stem and searched is not None:
            searched.put(place.column, trajectory, labelled)
    tensors: dict[str, Any] = {
        name: padded(layout.actions_only(_column(name, layout.trajectories)), 0, np.float32)
        for name in columns
        if name != CANDIDATES
    }
    if searched is not None:
        tensors["candidates"] = torch.from_numpy(searched.ids)
        tensors["candidate_weights"] = torch.from_numpy(searched.weights)
    steps = [one.policy_step if one.policy_steps is None else one.policy_steps for one in layout.trajectories]
    return Batch(
        objective=objective,
        tokens=padded(layout.token_ids[layout.at], shape.pad_id, np.int64),
        labels=padded(layout.token_ids[layout.at + 1], shape.pad_id, np.int64),
        positions=padded(layout.positions, 0, np.int64),
        loss_mask=padded(layout.mask, False, np.bool_),
        segments=padded(layout.segments, -1, np.int64),
        parents=padded(layout.parents, -1, np.int64) if (layout.parents >= 0).any() else None,
        policy_steps=padded(layout.actions_only(steps), 0, np.int64),
        legal_table=legal.table() if legal.sets else None,
        legal_index=torch.from_numpy(legal_index) if legal.sets else None,
        temperature=temperature,
        **tensors,
    )


class _Layout:
    """The tokens of a row's trajectories, one trajectory after another, and which of them stands in which column."""

    def __init__(self, parts: Sequence[Place]) -> None:
        self.trajectories = list({id(place.view.trajectory): place.view.trajectory for place in parts}.values())
        lengths = [len(one.token_ids) for one in self.trajectories]
        starts = dict(zip(map(id, self.trajectories), accumulate(lengths, initial=0)))
        firsts = [starts[id(place.view.trajectory)] + place.view.start + place.begin for place in parts]
        table = [
            (first, place.begin, place.column, place.segment, place.parent, place.length)
            for first, place in zip(firsts, parts)
        ]
        *of_parts, sizes = np.array(table, np.int64).reshape(-1, 6).T
        first, begin, column, self.segments, self.parents = np.repeat(np.stack(of_parts), sizes, axis=1)
        within = np.arange(len(column)) - column
        self.at, self.positions = first + within, begin + within  # of the column's token; its label is the one after
        self.lengths = np.array(lengths, np.int64)
        self.mask = _end_to_end([np.zeros(one.length, bool) if one.is_stem else _labels(one)[1] for one in parts], bool)
        self.token_ids = _end_to_end([one.token_ids for one in self.trajectories], np.int64)
        self.has_sets = any(one.kept_ids is not None for one in self.trajectories)

    def actions_only(self, values: Sequence[Any]) -> np.ndarray:
        """A value, or an array [L], of each trajectory -> the labels' by column, 0 where they are no actions."""
        if any(isinstance(value, np.ndarray) for value in values):
            pairs = zip(values, self.lengths)
            of_tokens = np.concatenate([one if isinstance(one, np.ndarray) else np.full(n, one) for one, n in pairs])
        else:
            of_tokens = np.repeat(np.array(values), self.lengths)
        return np.where(self.mask, of_tokens[self.at + 1], 0)


def _end_to_end(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype)


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
    labels = [int(np.count_nonzero(one.action_mask[1:])) for one in silent]
    shares = [count / max(1, int(np.count_nonzero(one.action_mask))) for count, one in zip(labels, silent)]
    return sum(labels), sum(shares)


def _column(name: str, trajectories: Sequence[Trajectory]) -> list[np.ndarray | float]:
    """What a float tensor of a batch holds of each trajectory: a value, or [L]; off the actions it does not matter."""
    if name == "advantages":
        return [one.advantage if one.token_advantages is None else one.token_advantages for one in trajectories]
    if name == "episode_rewards":
        return [one.reward for one in trajectories]
    if name == "sequence_share":
        return [1.0 / max(1, int(np.count_nonzero(one.action_mask))) for one in trajectories]
    return [getattr(one, "logprobs" if name == "behavior_logprobs" else name) for one in trajectories]


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
        self.seen: dict[int, int] = {}  # by id of an array, all of which outlive the table: most labels share a few

    def index(self, ids: np.ndarray | None) -> int:
        if ids is None:
            return 0
        if id(ids) not in self.seen:
            content = np.asarray(ids, dtype=np.int64).tobytes()
            self.seen[id(ids)] = self.sets.setdefault(content, len(self.sets) + 1)
        return self.seen[id(ids)]

    def table(self) -> torch.Tensor:
        table = torch.zeros(len(self.sets) + 1, self.vocab_size, dtype=torch.bool)
        table[0] = True
        for ids, row in self.sets.items():
            table[row, np.frombuffer(ids, dtype=np.int64).copy()] = True
        return table
