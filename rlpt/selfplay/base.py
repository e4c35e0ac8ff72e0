"""The SelfPlay contract: problems in, scored episodes with their peer sets out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlpt.rewards.base import Rubric
from rlpt.tasks.base import Task
from rlpt.types import Episode, Generator, Problem, Tokenizer


@dataclass(frozen=True)
class SelfPlay(ABC):
    """A form of self-play. Subclasses are frozen dataclasses whose fields are their YAML options."""

    @abstractmethod
    def play(
        self,
        problems: Sequence[Problem],
        tasks: Mapping[str, Task],
        generator: Generator,
        tokenizer: Tokenizer,
        rubric: Rubric,
        *,
        keys: Sequence[int],
        policy_step: int,
    ) -> list[Episode]:
        """Plays each problem and scores what was played.

        `tasks` by task name; `keys[i]` (64-bit) names problem i: all noise of its episodes is keyed by it, whatever
        else is in the call. `policy_step` is written into the trajectories. Trajectories that are compared with each
        other share `peers`.
        """
