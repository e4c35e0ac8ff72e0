"""The Reward protocol and the Rubric: a weighted sum that keeps each part. An exception is an error, never a 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pydantic import TypeAdapter, ValidationError

from rlpt import registry
from rlpt.config_objectives import Ramp, value_at
from rlpt.errors import ConfigError, TrainingError
from rlpt.tasks.base import Task
from rlpt.types import Episode, Problem, Scorer, Trajectory

DEFAULT_RUBRIC: tuple[Mapping[str, Any], ...] = ({"name": "correct", "weight": 1.0}, {"name": "format", "weight": 0.1})


@dataclass(frozen=True)
class RewardContext:
    """What a reward may ask while it scores the episodes of one play."""

    tasks: Mapping[str, Task] = field(default_factory=dict)
    scorers: Mapping[str, Scorer] = field(default_factory=dict)  # "policy" and the snapshots' names
    heads: Mapping[str, Scorer] = field(default_factory=dict)  # scalar heads: values [L] of the state before each token
    recent: Sequence[str] = ()  # the last episodes' texts, oldest first, of all ranks; before this play
    tokenizer: Any = None  # types.Tokenizer


@runtime_checkable
class Reward(Protocol):
    """One part of a rubric: a finite number for one role's trajectory in its episode."""

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float: ...


@runtime_checkable
class PlayReward(Protocol):
    """A part that looks at a whole play at once: it compares episodes, asks the model, or credits single tokens."""

    def over(self, episodes: Sequence[Episode], context: RewardContext) -> list[list[float | np.ndarray]]:
        """For each trajectory of each episode a finite number, or an array [L] of what each token earned (0 off the
        action mask; its sum is the trajectory's part)."""
        ...


@dataclass(frozen=True)
class RubricPart:
    """A reward under the name that figures carry, with its weight: a number, or a ramp over optimizer steps."""

    name: str
    reward: Reward | PlayReward
    weight: float | Ramp = 1.0


@dataclass(frozen=True)
class Rubric:
    """`reward = sum of weight x part`."""

    parts: tuple[RubricPart, ...]

    @classmethod
    def from_config(cls, specs: Sequence[Mapping[str, Any]] = DEFAULT_RUBRIC, where: str = "rubric") -> Rubric:
        """Builds `[{name, weight, label, **options}, ...]`; figures call a part by its label, or else by its name.
        Raises ConfigError naming the key at fault; a label comes once."""
        if not specs:
            raise ConfigError(f"{where}: empty; known rewards: {', '.join(registry.names('reward'))}")
        parts: list[RubricPart] = []
        for index, spec in enumerate(specs):
            key, options = f"{where}.{index}", dict(spec)
            weight = _weight(options.pop("weight", RubricPart.weight), f"{key}.weight")
            label = options.pop("label", "")
            reward = registry.create("reward", options, key)
            label = label or options["name"]
            if any(part.name == label for part in parts):
                raise ConfigError(f"{key}.name: '{label}' is given twice; give one weight for both, or labels")
            parts.append(RubricPart(label, reward, weight))
        return cls(tuple(parts))

    def score(self, episodes: Sequence[Episode], context: RewardContext | None = None, step: int = 0) -> None:
        """Fills `rewards` (unweighted parts), `reward` and `token_rewards` of every trajectory, with the weights in
        force at `step`. What a part raises is raised; a part that is not finite raises TrainingError."""
        context = context or RewardContext()
        for episode in episodes:
            for trajectory in episode.trajectories:
                trajectory.rewards, trajectory.reward, trajectory.token_rewards = {}, 0.0, None
        for part in self.parts:
            weight = value_at(part.weight, step)
            for episode, values in zip(episodes, _values(part.reward, episodes, context), strict=True):
                for trajectory, value in zip(episode.trajectories, values, strict=True):
                    _add(part.name, weight, value, trajectory, episode.problem)


def _values(
    reward: Reward | PlayReward, episodes: Sequence[Episode], context: RewardContext
) -> Sequence[Sequence[float | np.ndarray]]:
    if isinstance(reward, PlayReward):
        return reward.over(episodes, context)
    return [[reward(e.problem, trajectory, e) for trajectory in e.trajectories] for e in episodes]


def _add(name: str, weight: float, value: float | np.ndarray, trajectory: Trajectory, problem: Problem) -> None:
    total = float(np.sum(value) if isinstance(value, np.ndarray) else value)
    if not math.isfinite(total):
        raise TrainingError(f"reward '{name}' is {total} on {problem}; mend that reward")
    trajectory.rewards[name] = total
    trajectory.reward += weight * total
    if isinstance(value, np.ndarray):
        before = 0.0 if trajectory.token_rewards is None else trajectory.token_rewards
        trajectory.token_rewards = before + weight * value


def _weight(value: Any, where: str) -> float | Ramp:
    if isinstance(value, Mapping):
        try:
            return TypeAdapter(Ramp).validate_python(dict(value))
        except ValidationError as error:
            raise ConfigError(registry.describe(error, where)) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{where}: must be a finite number or a ramp {{start, end, steps}} (given: {value!r})")
    return float(value)
