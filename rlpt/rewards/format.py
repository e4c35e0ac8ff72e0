"""Whether the completion has the template's shape."""

from __future__ import annotations

from dataclasses import dataclass

from rlpt.registry import register
from rlpt.template import ANSWER, parse_answer
from rlpt.types import Episode, Problem, Trajectory


@register("reward", "format")
@dataclass(frozen=True)
class Format:
    """1 where the episode's text holds an answer mark, a non-empty answer and the end mark within the limit, else 0."""

    def __call__(self, problem: Problem, trajectory: Trajectory, episode: Episode) -> float:
        """`episode.text` starts with the mark that the prompt ended with."""
        return float(not trajectory.truncated and ANSWER in episode.text and bool(parse_answer(episode.text)))
