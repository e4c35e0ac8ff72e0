"""The two halves of RLSP's reward: an exploration reward that looks at the thought alone, and the verifier's.

Ye et al. 2025, "On the Emergence of Thinking in LLMs I". Their code's reward for a text with l tokens before the
answer is clamp(v - C / l, -10, 10), where v is -0.5 without an answer, else 1 for a right one and 0 for a wrong one.
Here the halves are parts of a rubric, each with its own figure: `exploration` is the -C / l and `rlsp` is v. Each part
is clamped by itself, so v counts below l = C / 10 too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.base import RewardContext
from rlpt.rewards.trace import Which, spell, task_of, turns
from rlpt.types import Episode, Problem, Trajectory


@register("reward", "exploration")
@dataclass(frozen=True)
class Exploration:
    """Pays for long thoughts with a concave function of their length l, C being `scale`:

        inverse      -C / l, at least -clamp: what RLSP uses (C = 1000 there); -clamp for no thought at all
                     (with `soft`: -C / (l + C / clamp), which meets -clamp at l = 0 and rises everywhere)
        log          log(1 + l / C), at most clamp
        saturating   1 - exp(-l / C)

    No thought is the worst value of each shape. Without `soft`, `inverse` is flat below l = C / clamp: no gradient
    there. C = 0 is the control run: 0 for everything. With `relative`, C is `scale` times the characters of the worked
    solution of each problem. Only the text before the answer mark counts, marks themselves never.

    `answer`: which mark that is, where there are several. The last one is what the template's verifier reads, so a
    revised answer counts and all that led to it earns length; RLSP's code stops at the first.
    `unit`: of l. RLSP's is a quarter of the characters.
    `count` distinct: only units that end an n-gram of `ngram` units which the thought has not had before. A repeated
    filler of p units then earns no more than n + p - 1; so does a long honest thought in very few symbols.
    `unanswered`: l of a text that has no answer or is cut short in it. RLSP counts it whole, and `rlsp` takes half a
    point off for it; beside rewards that do not tell it from a wrong answer, use none.
    """

    scale: float
    shape: Literal["inverse", "log", "saturating"] = "inverse"
    soft: bool = False
    clamp: float = 10.0
    relative: bool = False
    answer: Which = "last"
    unit: Literal["tokens", "characters"] = "tokens"
    count: Literal["all", "distinct"] = "all"
    ngram: int = 8
    unanswered: Literal["whole", "none"] = "whole"

    def __post_init__(self) -> None:
        if self.scale < 0 or self.clamp <= 0 or self.ngram < 1:
            raise ConfigError(
                f"scale={self.scale}, clamp={self.clamp}, ngram={self.ngram}: need scale >= 0, clamp > 0 and ngram >= 1"
            )
        if self.soft and self.shape != "inverse":
            raise ConfigError(f"soft=True with shape={self.shape}: only inverse is flat anywhere")

    def over(self, episodes: Sequence[Episode], context: RewardContext) -> list[list[float | np.ndarray]]:
        """In [-clamp, 0] for inverse, [0, clamp] for log and [0, 1] for saturating."""
        scales: dict[int, float] = {}
        values: list[list[float | np.ndarray]] = []
        for episode in episodes:
            problem = episode.problem
            if id(problem) not in scales:
                scales[id(problem)] = self.scale_of(problem, context)
            scale = scales[id(problem)]
            values.append([self.value(self.length(one, context), scale) for one in episode.trajectories])
        return values

    def scale_of(self, problem: Problem, context: RewardContext) -> float:
        """C for one problem."""
        if not self.relative:
            return self.scale
        return self.scale * max(1, len(task_of(problem, context, "exploration").solution(problem)))

    def length(self, trajectory: Trajectory, context: RewardContext) -> int:
        """l, over all turns."""
        total = 0
        for turn in turns(trajectory, context.tokenizer, self.answer):
            is_answered = turn.answer is not None and not trajectory.truncated
            if is_answered or self.unanswered == "whole":
                ids = trajectory.token_ids[turn.thought]
                units = spell(context.tokenizer, ids)[0] if self.unit == "characters" else tuple(ids.tolist())
                total += len(units) if self.count == "all" else num_fresh(units, self.ngram)
        return total

    def value(self, length: int, scale: float) -> float:
        """The shape at l = `length` and C = `scale`."""
        if scale == 0:
            return 0.0
        if self.shape == "log":
            return min(math.log1p(length / scale), self.clamp)
        if self.shape == "saturating":
            return -math.expm1(-length / scale)
        if self.soft:
            return -scale / (length + scale / self.clamp)
        return -min(scale / length, self.clamp) if length else -self.clamp


def num_fresh(units: Sequence[object], n: int) -> int:
    """How many of `units` end an n-gram that has not been there before. At the start, shorter ones count as such."""
    return len({tuple(units[max(0, end - n) : end]) for end in range(1, len(units) + 1)})


@register("reward", "rlsp")
@dataclass(frozen=True)
class RLSPVerifier:
    """`no_answer` where the text holds no answer or was cut short, else 1 for a right one and 0 for a wrong one.

    `answer` last scores what the episode's outcome scores; first, as RLSP's code does, asks the task about the text
    behind the first answer mark, whatever was revised after it.
    """

    no_answer: float = -0.5
    answer: Which = "last"

    def over(self, episodes: Sequence[Episode], context: RewardContext) -> list[list[float | np.ndarray]]:
        """`no_answer`, 0 or 1. Raises KeyError where the role has no outcome, ConfigError for first where a text has
        several turns."""
        return [[self._value(episode, one, context) for one in episode.trajectories] for episode in episodes]

    def _value(self, episode: Episode, trajectory: Trajectory, context: RewardContext) -> float:
        if self.answer == "first":
            return self._first(episode.problem, trajectory, context)
        answered = any(turn.answer is not None for turn in turns(trajectory, context.tokenizer))
        if trajectory.truncated or not answered:
            return self.no_answer
        return float(episode.outcome_of(trajectory) == 1.0)

    def _first(self, problem: Problem, trajectory: Trajectory, context: RewardContext) -> float:
        found = turns(trajectory, context.tokenizer, "first")
        if len(found) != 1:
            raise ConfigError(
                f"reward 'rlsp': answer=first reads one turn, and '{problem.task}' was played in {len(found)}; set "
                "answer: last"
            )
        turn = found[0]
        if turn.answer is None or (trajectory.truncated and not turn.is_closed):
            return self.no_answer
        text, _ = spell(context.tokenizer, trajectory.token_ids[turn.answer])
        return float(task_of(problem, context, "rlsp").verify(problem, text) == 1.0)
