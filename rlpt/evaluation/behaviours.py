"""What thoughts look like: their length, the behaviours in them, whether their steps are right, how much they repeat.

RLSP's evidence (Ye et al. 2025, "On the Emergence of Thinking in LLMs I") is that thoughts grow and that backtracking,
verification and alternatives appear. A task says by which marks they are known in its traces (`behaviour_marks`). A
policy that draws at random writes marks too, so beside each count stands the share of it that the task's own step
verifier calls right; and padding makes thoughts long, so beside the length stands the share of them that repeats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rlpt.selfplay.base import ROLE
from rlpt.tasks.base import Task
from rlpt.template import ANSWER, END, SPECIAL_TOKENS, THINK
from rlpt.types import Episode

NGRAM = 4  # characters
_MARKS = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))


@dataclass(frozen=True)
class Thought:
    """One thought, measured."""

    is_correct: bool  # the answer after it
    length: int  # characters: tokens too, where the legal mask is on
    repetition: float  # in [0, 1], see `repetition`
    num_steps: int  # words between spaces
    num_right_steps: int
    marked: Mapping[str, tuple[int, int]]  # behaviour -> steps that hold its mark, and how many of them are right


def thought_text(text: str) -> str | None:
    """The thought in an episode's marked text: what stands before the last answer mark, or all where none came, without
    marks. None where the text doesn't begin with a thought."""
    if not text.startswith(THINK):
        return None
    body = text.partition(END)[0]
    return _MARKS.sub("", body.rpartition(ANSWER)[0] if ANSWER in body else body)


def repetition(text: str, size: int = NGRAM) -> float:
    """Share of the character n-grams of `text` that it has had before: 0 where all differ, or for none at all."""
    grams = [text[at : at + size] for at in range(len(text) - size + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def measure(episode: Episode, task: Task) -> Thought | None:
    """The figures of an episode's thought; None where it has none."""
    text = thought_text(episode.text)
    if text is None:
        return None
    steps, verdicts = text.split(), task.verify_steps(episode.problem, text)
    marked = {}
    for behaviour, mark in task.behaviour_marks.items():
        found = [verdict == 1.0 for step, verdict in zip(steps, verdicts, strict=True) if mark in step]
        marked[behaviour] = (len(found), sum(found))
    return Thought(
        is_correct=episode.outcome[ROLE] == 1.0,
        length=len(text),
        repetition=repetition(text),
        num_steps=len(steps),
        num_right_steps=sum(verdict == 1.0 for verdict in verdicts),
        marked=marked,
    )


def behaviour_figures(thoughts: Sequence[Thought]) -> dict[str, Any]:
    """Means over the thoughts (at least one) of one task at one level, as JSON; None for a mean over nothing.

    {"thoughts": how many; "length": characters; "repetition"; "right_steps": share of right steps, over thoughts that
    have steps; "all_right": share of thoughts with steps, all of them right; "marks": {BEHAVIOUR: {"share": of thoughts
    with it; "per_thought": steps with it; "right": share of those steps that are right; "accuracy_with",
    "accuracy_without": share of right answers among thoughts with it and without it}}}
    """
    stepped = [one for one in thoughts if one.num_steps]
    return {
        "thoughts": len(thoughts),
        "length": fmean(one.length for one in thoughts),
        "repetition": fmean(one.repetition for one in thoughts),
        "right_steps": _mean([one.num_right_steps / one.num_steps for one in stepped]),
        "all_right": fmean(0 < one.num_steps == one.num_right_steps for one in thoughts),
        "marks": {behaviour: _mark_figures(thoughts, behaviour) for behaviour in thoughts[0].marked},
    }


def _mark_figures(thoughts: Sequence[Thought], behaviour: str) -> dict[str, Any]:
    uses, right = (sum(one.marked[behaviour][at] for one in thoughts) for at in (0, 1))
    with_it = [one.is_correct for one in thoughts if one.marked[behaviour][0]]
    without = [one.is_correct for one in thoughts if not one.marked[behaviour][0]]
    return {
        "share": len(with_it) / len(thoughts),
        "per_thought": uses / len(thoughts),
        "right": right / uses if uses else None,
        "accuracy_with": _mean(with_it),
        "accuracy_without": _mean(without),
    }


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
