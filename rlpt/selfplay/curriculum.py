"""Which task and level the next problem comes from, by measured success; a share of easier levels always stays.

Moving every prompt up at once collapses a policy (all-or-nothing groups carry no signal), so promotion only shifts
`1 - easier_share` of the draws. The easier share also tells a collapse from a hard level: success at a level that has
just opened is near 0 for a while, so a task steps back when it forgets the level *below* its current one. A draw is a
pure function of the state and the problem's global index, so all ranks agree and a resumed run draws the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rlpt.errors import CheckpointError, ConfigError
from rlpt.tasks.base import keyed_hash, train_seed


@dataclass(frozen=True)
class CurriculumOptions:
    """How one task moves through its levels."""

    start_level: int = 0
    target_level: int = 3  # the highest level that is played
    floor_level: int = 0  # the lowest level that is played
    easier_share: float = 0.3  # of draws that come evenly from the levels below the current one
    promote_at: float = 0.8  # mean success at the current level from which the next one opens
    demote_at: float = 0.4  # mean success at the level below the current one under which the task steps back
    min_count: int = 64  # attempts at a level before it is judged
    decay: float = 0.99  # of the running mean, an attempt

    def __post_init__(self) -> None:
        if not 0 <= self.floor_level <= self.start_level <= self.target_level:
            raise ConfigError(
                f"need 0 <= floor_level={self.floor_level} <= start_level={self.start_level} <= "
                f"target_level={self.target_level}"
            )
        if not 0 <= self.easier_share < 1:
            raise ConfigError(f"easier_share={self.easier_share} must be at least 0 and below 1")
        if not 0 <= self.demote_at < self.promote_at <= 1:
            raise ConfigError(f"need 0 <= demote_at={self.demote_at} < promote_at={self.promote_at} <= 1")
        if self.min_count < 1 or not 0 <= self.decay < 1:
            raise ConfigError(f"need min_count={self.min_count} >= 1 and 0 <= decay={self.decay} < 1")


@dataclass
class Progress:
    """Attempts at one level and their exponentially weighted success, bias-corrected by the sum of weights."""

    count: int = 0
    weighted: float = 0.0
    weight: float = 0.0

    @property
    def success(self) -> float:
        """Mean success in [0, 1]; 0 before the first attempt."""
        return self.weighted / self.weight if self.count else 0.0


class Curriculum:
    """Levels of several tasks. `weights[task]` is proportional to the task's share of draws."""

    def __init__(self, weights: Mapping[str, float], options: Mapping[str, CurriculumOptions], seed: int) -> None:
        if set(weights) != set(options) or not weights:
            raise ConfigError(f"curriculum: weights of {sorted(weights)} but options of {sorted(options)}")
        if min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ConfigError(f"curriculum: weights must not be negative, nor all 0 (given: {dict(weights)})")
        self._weights, self._options, self._seed = dict(weights), dict(options), seed
        self._levels = {task: option.start_level for task, option in options.items()}
        self._progress: dict[str, dict[int, Progress]] = {task: {} for task in options}

    def draw(self, index: int) -> tuple[str, int, int]:
        """(task, level, training seed) of the problem with this global index, at the present state."""
        rng = random.Random(keyed_hash("curriculum", self._seed, index))
        task = rng.choices(list(self._weights), list(self._weights.values()))[0]
        level, floor = self._levels[task], self._options[task].floor_level
        easier = rng.random() < self._options[task].easier_share
        if level > floor and easier:
            level = rng.randrange(floor, level)
        return task, level, train_seed(self._seed, index)

    def record(self, results: Iterable[tuple[str, int, float]]) -> None:
        """Takes in (task, level, exact success 0 or 1) of attempts, in an order that is the same on every rank, and
        then moves each task by at most one level."""
        played = set()
        for task, level, success in results:
            progress = self._progress[task].setdefault(level, Progress())
            decay = self._options[task].decay
            progress.count += 1
            progress.weighted = decay * progress.weighted + (1 - decay) * float(success)
            progress.weight = decay * progress.weight + (1 - decay)
            played.add(task)
        for task in sorted(played):
            self._move(task)

    def _move(self, task: str) -> None:
        options, level = self._options[task], self._levels[task]
        here, below = (self._progress[task].get(at, Progress()) for at in (level, level - 1))
        if below.count >= options.min_count and below.success < options.demote_at and level > options.floor_level:
            self._levels[task] = level - 1
        elif here.count >= options.min_count and here.success >= options.promote_at and level < options.target_level:
            self._levels[task] = level + 1

    def level(self, task: str) -> int:
        """The task's current level."""
        return self._levels[task]

    def metrics(self) -> dict[str, float]:
        """`level/TASK`, and `success/TASK` at that level (0 before the first attempt there)."""
        figures: dict[str, float] = {}
        for task, level in self._levels.items():
            figures[f"level/{task}"] = float(level)
            figures[f"success/{task}"] = self._progress[task].get(level, Progress()).success
        return figures

    def state_dict(self) -> dict[str, Any]:
        """JSON-able and exact."""
        return {
            task: {
                "level": self._levels[task],
                "progress": [[n, p.count, p.weighted, p.weight] for n, p in sorted(self._progress[task].items())],
            }
            for task in self._levels
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Tasks that the state lacks start anew, tasks that are no longer played are left out. Raises CheckpointError
        for a level outside the present options."""
        for task, saved in state.items():
            if task not in self._levels:
                continue
            options, level = self._options[task], saved["level"]
            if not options.floor_level <= level <= options.target_level:
                raise CheckpointError(
                    f"curriculum of task {task}: the checkpoint is at level {level}, outside floor_level="
                    f"{options.floor_level} .. target_level={options.target_level}; widen them to hold that level"
                )
            self._levels[task] = saved["level"]
            self._progress[task] = {n: Progress(count, w, total) for n, count, w, total in saved["progress"]}
