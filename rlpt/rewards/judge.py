"""A judge from outside, for instance a model behind a service, as one part of a rubric."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from rlpt.errors import ConfigError, TrainingError
from rlpt.registry import register
from rlpt.rewards.base import RewardContext
from rlpt.types import Episode

log = logging.getLogger(__name__)
Judge = Callable[[list[str]], Sequence[float]]  # whole texts with their marks -> scores in [0, 1], one each


@register("reward", "judge")
@dataclass(frozen=True)
class Judged:
    """The score in [0, 1] that `judge`, a `module:callable`, gives each trajectory's text, prompt included. It is
    called once a play, with all texts, and imported when it is first needed.

    A judge fails where it raises, returns another number of scores, or one that is no number in [0, 1]. That stops the
    run, unless `on_failure` says what a text without a score gets (RLSP, Ye et al. 2025: 0.5); then failures are logged
    and counted.
    """

    judge: str
    on_failure: float | None = None
    failures: list[int] = field(default_factory=lambda: [0], init=False, repr=False, compare=False)  # texts so far

    def __post_init__(self) -> None:
        module, _, name = self.judge.partition(":")
        if not module or not name:
            raise ConfigError(f"judge={self.judge!r}: must be 'module:callable'")
        if self.on_failure is not None and not 0 <= self.on_failure <= 1:
            raise ConfigError(f"on_failure={self.on_failure}: must be between 0 and 1, or null to stop the run")

    def over(self, episodes: Sequence[Episode], context: RewardContext) -> list[list[float | np.ndarray]]:
        """In [0, 1]. Raises ConfigError for a judge that can't be imported, TrainingError for one that fails."""
        judge = self.load()
        texts = [
            context.tokenizer.decode(one.token_ids.tolist()) for episode in episodes for one in episode.trajectories
        ]
        scores = iter(self._scores(judge, texts))
        return [[next(scores) for _ in episode.trajectories] for episode in episodes]

    def load(self) -> Judge:
        """The callable."""
        module, _, name = self.judge.partition(":")
        try:
            judge = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"reward 'judge': judge={self.judge}: can't be imported ({error})") from error
        if not callable(judge):
            raise ConfigError(f"reward 'judge': judge={self.judge}: is not callable")
        return judge

    def _scores(self, judge: Judge, texts: list[str]) -> list[float]:
        try:
            scores = list(judge(texts))
            if len(scores) != len(texts):
                raise ValueError(f"{len(scores)} scores for {len(texts)} texts")
        except Exception as error:
            if self.on_failure is None:
                raise TrainingError(
                    f"reward 'judge': {self.judge} failed: {error!r}; mend it, or set on_failure"
                ) from error
            return [self._failed(self.on_failure, f"{error!r}", len(texts))] * len(texts)
        return [score if (score := self._number(given)) is not None else self._refused(given) for given in scores]

    def _number(self, given: object) -> float | None:
        score = float(given) if isinstance(given, Real) else -1.0
        return score if 0 <= score <= 1 else None

    def _refused(self, given: object) -> float:
        if self.on_failure is None:
            raise TrainingError(
                f"reward 'judge': {self.judge} scored {given!r}, which is not in [0, 1]; mend it, or set on_failure"
            )
        return self._failed(self.on_failure, f"scored {given!r}", 1)

    def _failed(self, score: float, why: str, num_texts: int) -> float:
        self.failures[0] += num_texts
        log.warning("judge %s: %s; %d texts got %s (%d so far)", self.judge, why, num_texts, score, self.failures[0])
        return score
