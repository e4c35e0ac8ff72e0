"""Preference pairs of a run's episodes as JSONL, for DPO (Rafailov et al. 2305.18290) by another trainer.

A line: `prompt`, `chosen` and `rejected` (marked texts, the names that TRL and its like read), and where they are from:
`objective`, `step`, `task`, `level`, `seed`, and both rewards.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlpt.batch import SourceContext
from rlpt.rollout.ranks import in_turn
from rlpt.types import Episode, Problem, Tokenizer, Trajectory

FILE = "preferences.jsonl"


def preference_pairs(episodes: Sequence[Episode], tokenizer: Tokenizer) -> list[list[dict[str, Any]]]:
    """By problem: the best and the worst attempt (ties: the first) of each set of peers with one prompt and different
    rewards. Trajectories of several turns have no prompt in common and are left out."""
    sets: dict[int, dict[tuple[Any, ...], list[tuple[Problem, Trajectory, int]]]] = {}
    for episode in episodes:
        found = sets.setdefault(id(episode.problem), {})
        for one in episode.trajectories:
            actions = np.flatnonzero(one.action_mask)
            if not len(actions) or actions[-1] + 1 - actions[0] != len(actions):
                continue
            prompt = tuple(one.token_ids[: actions[0]].tolist())
            found.setdefault((one.peers, one.role, prompt), []).append((episode.problem, one, int(actions[0])))
    return [[_pair(same, tokenizer) for same in found.values() if _differ(same)] for found in sets.values()]


def _differ(attempts: Sequence[tuple[Problem, Trajectory, int]]) -> bool:
    return len({one.reward for _, one, _ in attempts}) > 1


def _pair(attempts: Sequence[tuple[Problem, Trajectory, int]], tokenizer: Tokenizer) -> dict[str, Any]:
    problem, best, start = max(attempts, key=lambda attempt: attempt[1].reward)
    worst = min(attempts, key=lambda attempt: attempt[1].reward)[1]
    return {
        "prompt": tokenizer.decode(best.token_ids[:start].tolist()),
        "chosen": tokenizer.decode(best.token_ids[start:].tolist()),
        "rejected": tokenizer.decode(worst.token_ids[start:].tolist()),
        "chosen_reward": best.reward,
        "rejected_reward": worst.reward,
        "task": problem.task,
        "level": problem.level,
        "seed": problem.seed,
    }


class Preferences:
    """Appends to the run's file, on the rank that has its folder. A run that goes on from step s first cuts what this
    objective wrote at s and later, and a torn last line."""

    def __init__(self, context: SourceContext) -> None:
        self.context = context
        self._is_cut = False

    def write(self, episodes: Sequence[Episode], step: int) -> None:
        """Pairs of all ranks' episodes of one play, in problem order. All data-parallel ranks must call it."""
        parts = self.context.gather(preference_pairs(episodes, self.context.tokenizer))
        if self.context.directory is None:
            return
        path = self.context.directory / FILE
        if not self._is_cut:
            self._cut(path, step)
            self._is_cut = True
        rows = [{**pair, "objective": self.context.objective, "step": step} for pair in in_turn(parts)]
        with open(path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())

    def _cut(self, path: Path, step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return
        kept = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if self._stays(line, step)]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept), encoding="utf-8")
        os.replace(partial, path)

    def _stays(self, line: str, step: int) -> bool:
        if not line.endswith("\n"):
            return False
        row = json.loads(line)
        return bool(row["objective"] != self.context.objective or row["step"] < step)
