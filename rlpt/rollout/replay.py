"""Plays that wait to be learned from: several epochs over one play, minibatches of it, and bounded staleness.

A play is what one call of the generator gave. Each is learned from in `inner_epochs` x `minibatches` optimizer steps.
With `staleness` s, s + 1 plays are made before the first step, and then one whenever one is used up: the learner is
always s plays behind the player, as when rollouts arrive from elsewhere.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlpt.selfplay import id_sets
from rlpt.types import Trajectory


@dataclass
class Play:
    """This rank's trajectories of one play. Mutable: `used` counts the steps that learned from it."""

    index: int  # of the plays of this source
    groups: list[list[Trajectory]]  # by problem, in problem order
    used: int = 0


@dataclass
class Replay:
    """A queue of plays, oldest first."""

    seed: int
    inner_epochs: int = 1
    minibatches: int = 1
    staleness: int = 0
    plays: list[Play] = field(default_factory=list)
    played: int = 0

    @property
    def wants_play(self) -> bool:
        """Whether another play has to be made before the next step can learn."""
        return len(self.plays) <= self.staleness

    def add(self, groups: list[list[Trajectory]]) -> None:
        """A fresh play of this rank, by problem."""
        self.plays.append(Play(self.played, groups))
        self.played += 1

    def next(self) -> list[Trajectory]:
        """This rank's trajectories for the next optimizer step."""
        play = self.plays[0]
        epoch, part = divmod(play.used, self.minibatches)
        play.used += 1
        if play.used >= self.inner_epochs * self.minibatches:  # more: resumed with fewer epochs
            self.plays.pop(0)
        trajectories = [one for group in play.groups for one in group]
        if self.minibatches == 1:
            return trajectories
        order = np.random.default_rng([self.seed, play.index, epoch]).permutation(len(trajectories))
        return [trajectories[i] for i in order[part :: self.minibatches]]

    def state_dict(self, gather: Callable[[Any], list[Any]]) -> dict[str, Any]:
        """JSON-able, the same on every rank and for any number of them; all data-parallel ranks must call it."""
        waiting = []
        for play in self.plays:
            parts = gather([[_encoded(one) for one in group] for group in play.groups])
            turns = max(map(len, parts))
            groups = [part[turn] for turn in range(turns) for part in parts if turn < len(part)]
            waiting.append({"index": play.index, "used": play.used, "groups": groups})
        return {"played": self.played, "waiting": waiting}

    def load_state_dict(self, state: Mapping[str, Any], data_rank: int, data_size: int) -> None:
        """Goes on where `state_dict` was taken; each rank takes its share of the problems."""
        self.played = state["played"]
        self.plays = [
            Play(
                play["index"],
                [[_decoded(one) for one in group] for group in play["groups"][data_rank::data_size]],
                play["used"],
            )
            for play in state["waiting"]
        ]


def _encoded(trajectory: Trajectory) -> dict[str, Any]:
    """A JSON value: arrays exactly, as base64 of their bytes; each set of kept ids once."""
    values = {one.name: getattr(trajectory, one.name) for one in dataclasses.fields(trajectory)}
    values = {name: _array(value) if isinstance(value, np.ndarray) else value for name, value in values.items()}
    for name in ("kept_ids", "candidates"):
        values[name] = id_sets.encoded(values[name])
    if trajectory.candidate_weights is not None:
        weights = {at: _array(one) for at, one in enumerate(trajectory.candidate_weights) if one is not None}
        values["candidate_weights"] = [weights.get(at) for at in range(len(trajectory.candidate_weights))]
    return values


def _decoded(values: Mapping[str, Any]) -> Trajectory:
    arrays = {name: _unpacked(value) for name, value in values.items() if _is_array(value)}
    windows, weights = values["windows"], values.get("candidate_weights")
    sequences = {name: id_sets.decoded(values.get(name)) for name in ("kept_ids", "candidates")}
    if weights is not None:
        weights = tuple(None if one is None else _unpacked(one) for one in weights)
    if windows is not None:
        windows = tuple((start, stop) for start, stop in windows)
    return Trajectory(**{**values, **arrays, **sequences, "candidate_weights": weights, "windows": windows})


def _array(value: np.ndarray) -> dict[str, str]:
    return {"dtype": value.dtype.str, "base64": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()}


def _is_array(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"dtype", "base64"}


def _unpacked(value: Mapping[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(value["base64"]), dtype=value["dtype"]).copy()
