"""The Reward protocol and the Rubric: a weighted sum that keeps each part. An exception is an error, never a 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rlpt import registry
from rlpt.errors import ConfigError, TrainingError
from rlpt.types import Episode, Problem, Trajectory

DEFAULT_RUBRIC: tuple[Mapping[str, Any], ...] = ({"name": "correct", "weight": 1.0}, {"name": "format", "weight": 0.1})


@runtime_checkable
class Reward(Protocol):
    """One part of a rubric: a finite number for one role's trajectory in its episode."""

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float: ...


@dataclass(frozen=True)
class RubricPart:
    """A reward under the name that figures carry, with its weight."""

    name: str
    reward: Reward
    weight: float = 1.0


@dataclass(frozen=True)
class Rubric:
    """`reward = sum of weight x part`."""

    parts: tuple[RubricPart, ...]

    @classmethod
    def from_config(cls, specs: Sequence[Mapping[str, Any]] = DEFAULT_RUBRIC, where: str = "rubric") -> Rubric:
        """Builds `[{name, weight, **options}, ...]`. Raises ConfigError naming the key at fault; a name comes once."""
        if not specs:
            raise ConfigError(f"{where}: empty; known rewards: {', '.join(registry.names('reward'))}")
        parts: list[RubricPart] = []
        for index, spec in enumerate(specs):
            key, options = f"{where}.{index}", dict(spec)
            weight = options.pop("weight", RubricPart.weight)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
                raise ConfigError(f"{key}.weight: must be a finite number (given: {weight!r})")
            reward = registry.create("reward", options, key)
            if any(part.name == options["name"] for part in parts):
                raise ConfigError(f"{key}.name: '{options['name']}' is given twice; give one weight for both")
            parts.append(RubricPart(options["name"], reward, float(weight)))
        return cls(tuple(parts))

    def score(self, episode: Episode) -> None:
        """Fills `rewards` (unweighted parts) and `reward` of every trajectory. What a part raises is raised; a part
        that is not finite raises TrainingError."""
        for trajectory in episode.trajectories:
            rewards = {}
            for part in self.parts:
                value = float(part.reward(episode.problem, trajectory, episode))
                if not math.isfinite(value):
                    raise TrainingError(f"reward '{part.name}' is {value} on {episode.problem}; mend that reward")
                rewards[part.name] = value
            trajectory.rewards = rewards
            trajectory.reward = sum(part.weight * rewards[part.name] for part in self.parts)
