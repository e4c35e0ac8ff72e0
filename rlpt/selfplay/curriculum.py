"""Which task and level the next problem comes from, by measured success; shares of other levels always stay.

Moving every prompt up at once collapses a policy (all-or-nothing groups carry no signal), so promotion only shifts
what is left beside `easier_share` and `probe_share`. The easier share also tells a collapse from a hard level: success
at a level that has just opened is near 0 for a while, so a task steps back when it forgets the level *below* its
current one, and the level that it left must be earned anew. The probe share asks about the level above: where the
policy already solves it, the task moves up sooner.

Between tasks, `Weighting.progress_share` of the draws follows absolute learning progress, the gap between a quick and a
slow running mean of success (Matiisen et al. 2017, 1707.00183; Portelas et al. 2019, 1910.07224): tasks that are being
learned or forgotten come more often than those that are mastered or out of reach.

A draw is a pure function of the state and the problem's global index, so all ranks agree and a resumed run draws the
same.
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
    probe_share: float = 0.0  # of draws that come from the level above the current one
    promote_at: float = 0.8  # mean success at the current level from which the next one opens: the band's upper end
    demote_at: float = 0.4  # mean success at the level below the current one under which the task steps back
    min_count: int = 64  # attempts at a level before it is judged
    decay: float = 0.99  # of the running mean, an attempt

    def __post_init__(self) -> None:
        if not 0 <= self.floor_level <= self.start_level <= self.target_level:
            raise ConfigError(
                f"need 0 <= floor_level={self.floor_level} <= start_level={self.start_level} <= "
                f"target_level={self.target_level}"
            )
        if min(self.easier_share, self.probe_share) < 0 or self.easier_share + self.probe_share >= 1:
            raise ConfigError(
                f"easier_share={self.easier_share} and probe_share={self.probe_share} must be at least 0 and below 1 "
                "together"
            )
        if not 0 <= self.demote_at < self.promote_at <= 1:
            raise ConfigError(f"need 0 <= demote_at={self.demote_at} < promote_at={self.promote_at} <= 1")
        if self.min_count < 1 or not 0 <= self.decay < 1:
            raise ConfigError(f"need min_count={self.min_count} >= 1 and 0 <= decay={self.decay} < 1")


@dataclass(frozen=True)
class Weighting:
    """How draws are shared between tasks."""

    progress_share: float = 0.0  # of draws that follow learning progress; the rest follows the tasks' weights
    floor: float = 0.05  # learning progress that every task is taken to have at least

    def __post_init__(self) -> None:
        if not 0 <= self.progress_share <= 1 or self.floor <= 0:
            raise ConfigError(f"need 0 <= progress_share={self.progress_share} <= 1 and floor={self.floor} > 0")


@dataclass
class Progress:
    """Attempts at one level, with running means of success: `weighted / weight`, bias-corrected, and a slower one."""

    count: int = 0
    weighted: float = 0.0
    weight: float = 0.0
    slow_weighted: float = 0.0
    slow_weight: float = 0.0

    def add(self, success: float, decay: float) -> None:
        """Takes one attempt in. The slow mean forgets a fifth as fast."""
        slow_decay = 1 - (1 - decay) / 5
        self.count += 1
        self.weighted = decay * self.weighted + (1 - decay) * success
        self.weight = decay * self.weight + (1 - decay)
        self.slow_weighted = slow_decay * self.slow_weighted + (1 - slow_decay) * success
        self.slow_weight = slow_decay * self.slow_weight + (1 - slow_decay)

    @property
    def success(self) -> float:
        """Mean success in [0, 1]; 0 before the first attempt."""
        return self.weighted / self.weight if self.count else 0.0

    @property
    def learning(self) -> float:
        """|quick mean - slow mean|, in [0, 1]."""
        return abs(self.success - self.slow_weighted / self.slow_weight) if self.count else 0.0


class Curriculum:
    """Levels of several tasks. `weights[task]` is proportional to the task's fixed share of draws."""

    def __init__(
        self,
        weights: Mapping[str, float],
        options: Mapping[str, CurriculumOptions],
        seed: int,
        weighting: Weighting | None = None,
    ) -> None:
        if set(weights) != set(options) or not weights:
            raise ConfigError(f"curriculum: weights of {sorted(weights)} but options of {sorted(options)}")
        if min(weights.values()) < 0 or sum(weights.values()) <= 0:
            raise ConfigError(f"curriculum: weights must not be negative, nor all 0 (given: {dict(weights)})")
        self._weights, self._options, self._seed = dict(weights), dict(options), seed
        self._weighting = weighting or Weighting()
        self._levels = {task: option.start_level for task, option in options.items()}
        self._progress: dict[str, dict[int, Progress]] = {task: {} for task in options}

    def draw(self, index: int) -> tuple[str, int, int]:
        """(task, level, training seed) of the problem with this global index, at the present state."""
        rng = random.Random(keyed_hash("curriculum", self._seed, index))
        shares = self.shares()
        task = rng.choices(list(shares), list(shares.values()))[0]
        options, level = self._options[task], self._levels[task]
        where = rng.random()
        if where < options.easier_share:
            if level > options.floor_level:
                level = rng.randrange(options.floor_level, level)
        elif where >= 1 - options.probe_share and level < options.target_level:
            level += 1
        return task, level, train_seed(self._seed, index)

    def shares(self) -> dict[str, float]:
        """Each task's share of draws, in [0, 1]."""
        total = sum(self._weights.values())
        fixed = {task: weight / total for task, weight in self._weights.items()}
        part = self._weighting.progress_share
        if part == 0:
            return fixed
        learning = {task: fixed[task] * max(self._weighting.floor, self._learning(task)) for task in fixed}
        whole = sum(learning.values())
        return {task: (1 - part) * fixed[task] + part * learning[task] / whole for task in fixed}

    def _learning(self, task: str) -> float:
        """Learning progress where the task stands: at its level and those next to it that have been tried."""
        level = self._levels[task]
        return max(self._at(task, near).learning for near in (level - 1, level, level + 1))

    def _at(self, task: str, level: int) -> Progress:
        return self._progress[task].get(level, Progress())

    def record(self, results: Iterable[tuple[str, int, float]]) -> None:
        """Takes in (task, level, exact success 0 or 1) of attempts, in an order that is the same on every rank, and
        then moves each task by at most one level."""
        played = set()
        for task, level, success in results:
            self._progress[task].setdefault(level, Progress()).add(float(success), self._options[task].decay)
            played.add(task)
        for task in sorted(played):
            self._move(task)

    def _move(self, task: str) -> None:
        options, level = self._options[task], self._levels[task]
        here, below, above = (self._at(task, near) for near in (level, level - 1, level + 1))
        if below.count >= options.min_count and below.success < options.demote_at and level > options.floor_level:
            self._levels[task] = level - 1
            self._progress[task].pop(level, None)
        elif level < options.target_level and any(
            p.count >= options.min_count and p.success >= options.promote_at for p in (here, above)
        ):
            self._levels[task] = level + 1

    def level(self, task: str) -> int:
        """The task's current level."""
        return self._levels[task]

    def start_at(self, task: str, level: int) -> None:
        """Puts a task that has not been played yet on another level of its range."""
        options = self._options[task]
        assert not self._progress[task], "only before the first attempt"
        assert options.floor_level <= level <= options.target_level
        self._levels[task] = level

    def metrics(self) -> dict[str, float]:
        """`level/TASK`, `success/TASK` at that level (0 before the first attempt there), `share/TASK` of draws."""
        figures: dict[str, float] = {}
        for (task, level), share in zip(self._levels.items(), self.shares().values(), strict=True):
            figures[f"level/{task}"] = float(level)
            figures[f"success/{task}"] = self._at(task, level).success
            figures[f"share/{task}"] = share
        return figures

    def table(self) -> list[tuple[str, int, bool, int, float, float]]:
        """(task, level, whether it is the current one, attempts, success, learning progress) of all levels tried."""
        return [
            (task, level, level == self._levels[task], p.count, p.success, p.learning)
            for task, levels in self._progress.items()
            for level, p in sorted(levels.items())
        ]

    def state_dict(self) -> dict[str, Any]:
        """JSON-able and exact."""
        return {
            task: {
                "level": self._levels[task],
                "progress": [
                    [level, p.count, p.weighted, p.weight, p.slow_weighted, p.slow_weight]
                    for level, p in sorted(self._progress[task].items())
                ],
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
            self._progress[task] = {row[0]: Progress(*row[1:]) for row in saved["progress"]}
