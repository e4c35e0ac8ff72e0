"""What a step leaves in the logs: its row of figures, the episodes that were played, the levels that were reached."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from rlpt.batch import Batch
from rlpt.training.schedule import StepPlan
from rlpt.training.state import TrainState
from rlpt.training.step_figures import StepResult
from rlpt.training.tracking import Tracker

_EPISODES = ["objective", "task", "level", "prompt", "answer", "completion", "reward", "advantage", "truncated"]
_LEVELS = ["objective", "task", "level", "is_current", "attempts", "success", "learning"]


def step_row(
    state: TrainState,
    plan: StepPlan,
    batches: Mapping[str, list[Batch]],
    result: StepResult,
    streams: Mapping[str, Any],
) -> dict[str, Any]:
    """One step's figures, after it was accounted for in `state`; `streams` by objective."""
    row: dict[str, Any] = {
        "step": state.step,
        "tokens": state.text_tokens,
        "episodes": state.episodes,
        "rollout_tokens": state.rollout_tokens,
        "lr": plan.lr,
        "gradient_norm": result.gradient_norm,
        "seconds": state.seconds,
    }
    for name, part in batches.items():
        row[f"{name}/loss"] = result.losses[name]
        row[f"{name}/loss_tokens"] = result.tokens[name]
        row[f"{name}/share"] = plan.shares[name]
        row[f"{name}/coefficient"] = plan.coefficients[name]
        row[f"{name}/fingerprint"] = fingerprint(part)
        row[f"{name}/flops"] = state.accounts[name]["flops"]
        row |= {f"{name}/{key}": value for key, value in streams[name].source.metrics().items()}
    faults = {"genuine": state.genuine_steps, "transient": state.transient_steps, "rollbacks": state.rollbacks}
    row |= {f"faults/{name}": number for name, number in faults.items() if number}
    return row | result.metrics | ({"skipped": 1} if result.skipped else {})


def log_episodes(tracker: Tracker, streams: Mapping[str, Any]) -> None:
    """Tables of the last episodes of each objective that plays, and of its curriculum."""
    rows, levels = [], []
    for name, stream in streams.items():
        if (curriculum := getattr(stream.source, "curriculum", None)) is not None:
            levels += [(name, *row) for row in curriculum.table()]
        for episode in getattr(stream.source, "last_episodes", []):
            first = episode.trajectories[0]
            problem = episode.problem
            asked = (name, problem.task, problem.level, problem.prompt, problem.answer)
            rows.append((*asked, episode.text, first.reward, first.advantage, first.truncated))
    if rows:
        tracker.table("play_episodes", _EPISODES, rows)
    if levels:
        tracker.table("curriculum", _LEVELS, levels)


def fingerprint(batches: list[Batch]) -> str:
    """16 hex digits of the rows' tokens, labels and loss mask: two runs that read the same data log the same."""
    digest = hashlib.blake2b(digest_size=8)
    for batch in batches:
        for tensor in (batch.tokens, batch.labels, batch.loss_mask):
            digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
