"""Where a trajectory's thoughts stand, and how their text falls into tokens: what rewards of reasoning share."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rlpt.errors import ConfigError
from rlpt.rewards.base import RewardContext
from rlpt.tasks.base import Task
from rlpt.template import ANSWER, SPECIAL_TOKENS, TURN
from rlpt.types import Problem, Trajectory

Which = Literal["last", "first"]
GRID = 2.0**-32


@dataclass(frozen=True)
class Turn:
    """What the policy wrote in one go, as positions in `Trajectory.token_ids`; marks belong to neither part."""

    thought: np.ndarray  # [n] i64
    answer: np.ndarray | None  # [m] i64, up to the next mark; None: the answer's mark never came
    is_closed: bool  # whether a mark stands behind that answer


def turns(trajectory: Trajectory, tokenizer: Any, answer: Which = "last") -> list[Turn]:
    """The turns of a trajectory, one for each unbroken run of actions, divided at the last or the first answer mark.

    That mark may be the given text's last token (there a turn's mark does as well): no thought stands before it.
    Without one, all is thought, as RLSP counts a text without a box.
    """
    ids, found = trajectory.token_ids, []
    is_mark = np.isin(ids, [tokenizer.mark_id(mark) for mark in SPECIAL_TOKENS])
    is_answer_mark = ids == tokenizer.mark_id(ANSWER)
    positions = np.flatnonzero(trajectory.action_mask)
    for run in np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1):
        if not len(run):
            continue
        before, cuts = run[0] - 1, run[is_answer_mark[run]]
        if before >= 0 and (is_answer_mark[before] or ids[before] == tokenizer.mark_id(TURN)):
            cuts = np.append(before, cuts)
        if not len(cuts):
            found.append(Turn(run[~is_mark[run]], None, False))
            continue
        cut = cuts[-1] if answer == "last" else cuts[0]
        behind = run[run > cut]
        marks = behind[is_mark[behind]]
        stop = marks[0] if len(marks) else run[-1] + 1
        found.append(Turn(run[(run < cut) & ~is_mark[run]], behind[behind < stop], bool(len(marks))))
    return found


def spell(tokenizer: Any, ids: np.ndarray) -> tuple[str, np.ndarray]:
    """The text of `ids` without marks, and [characters] i64: which of `ids` completed each character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces = [decoder.decode(tokenizer.decode_bytes([int(token)])) for token in ids]
    cut_short = decoder.decode(b"", final=True)
    owners = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])
    owners = np.append(owners, np.full(len(cut_short), len(pieces) - 1))
    return "".join(pieces) + cut_short, owners.astype(np.int64)


def steps(tokenizer: Any, token_ids: np.ndarray, thought: np.ndarray) -> tuple[str, np.ndarray]:
    """The text of a thought (positions [n]), and [S] i64: the position of the last token of each of its steps, which
    whitespace divides."""
    text, owners = spell(tokenizer, token_ids[thought])
    ends = np.array([match.end() - 1 for match in re.finditer(r"\S+", text)], np.int64)
    return text, thought[owners[ends]]


def on_grid(values: np.ndarray) -> np.ndarray:
    """f64 values rounded to multiples of 2^-32, so that sums below 2^20 are exact and equal totals equal to the last
    bit: algorithms that divide by a group's deviation would make a signal of what rounding leaves."""
    return np.round(values / GRID) * GRID


def task_of(problem: Problem, context: RewardContext, reward: str) -> Task:
    """The problem's task. Raises ConfigError where none stands behind it, as behind a passage of a corpus."""
    if problem.task not in context.tasks:
        raise ConfigError(f"reward '{reward}': there is no task '{problem.task}' to ask; take it out of the rubric")
    return context.tasks[problem.task]
