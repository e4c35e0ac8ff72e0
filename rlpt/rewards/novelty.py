"""How much of a thought is new: compared with what was written lately and with the other attempts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.base import RewardContext
from rlpt.rewards.trace import spell, turns
from rlpt.template import SPECIAL_TOKENS
from rlpt.types import Episode, Trajectory

_MARKS = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))


@register("reward", "novelty")
@dataclass(frozen=True)
class Novelty:
    """The share of a thought's character n-grams that neither the recent episodes' texts nor its peers' thoughts hold.

    An n-gram that a thought repeats counts once, as one of all its places, so that repetition lowers the share. 0 for a
    thought of fewer than n characters. What is new need not be long: `exploration` pays for that.
    """

    uses_recent: ClassVar[bool] = True  # asks for RewardContext.recent

    ngram: int = 4  # characters

    def __post_init__(self) -> None:
        if self.ngram < 1:
            raise ConfigError(f"ngram={self.ngram}: must be at least 1 character")

    def over(self, episodes: Sequence[Episode], context: RewardContext) -> list[list[float | np.ndarray]]:
        """In [0, 1]."""
        known = {gram for text in context.recent for piece in _MARKS.split(text) for gram in self._grams(piece)}
        own = [[self._of(trajectory, context) for trajectory in episode.trajectories] for episode in episodes]
        holders: Counter[tuple[int, str]] = Counter()  # (peers, n-gram) -> thoughts that hold it
        for episode, thoughts in zip(episodes, own, strict=True):
            for trajectory, grams in zip(episode.trajectories, thoughts, strict=True):
                holders.update((trajectory.peers, gram) for gram in set(grams))

        def share(trajectory: Trajectory, grams: list[str]) -> float:
            new = sum(holders[trajectory.peers, gram] == 1 for gram in set(grams) - known)
            return new / max(1, len(grams))

        return [
            [share(trajectory, grams) for trajectory, grams in zip(episode.trajectories, thoughts)]
            for episode, thoughts in zip(episodes, own)
        ]

    def _of(self, trajectory: Trajectory, context: RewardContext) -> list[str]:
        thoughts = [turn.thought for turn in turns(trajectory, context.tokenizer)]
        texts = [spell(context.tokenizer, trajectory.token_ids[thought])[0] for thought in thoughts]
        return [gram for text in texts for gram in self._grams(text)]

    def _grams(self, text: str) -> list[str]:
        return [text[at : at + self.ngram] for at in range(len(text) - self.ngram + 1)]
