"""What a run leaves behind when it stops itself: the rows on which policy and sampler are furthest apart."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rlpt.batch import Batch
from rlpt.evaluation.summary import write_json
from rlpt.training.runtime import Runtime

WORST = 8  # trajectories that are written
LARGEST = 1e3  # what a log ratio is written as that is larger, or not a number


def write_worst_rows(runtime: Runtime, run_dir: Path, step: int, batches: Mapping[str, list[Batch]]) -> Path:
    """Writes `stopped-step-N.json`: of the played objectives' rows on all ranks, the trajectories with the largest mean
    |log(policy / sampler)|, token by token. All ranks must call it, at the weights that the step began with."""
    found = [row for name, part in batches.items() for batch in part for row in _rows(runtime, name, batch)]
    everyone = [row for part in runtime.mesh.data.gather_objects(found) for row in part]
    worst = sorted(everyone, key=lambda row: -row["mean_abs_log_ratio"])[:WORST]
    path = run_dir / f"stopped-step-{step + 1:08d}.json"
    if runtime.mesh.is_primary:
        write_json(path, {"step": step + 1, "worst": worst})
    return path


def _rows(runtime: Runtime, objective: str, batch: Batch) -> list[dict[str, Any]]:
    if batch.behavior_logprobs is None or batch.candidates is not None:  # what a search chose the policy never sampled
        return []
    logprobs = runtime.policy.score(batch).logprobs.cpu().double().numpy()
    behavior = batch.behavior_logprobs.double().numpy()
    mask, segments = batch.loss_mask.numpy(), batch.segments.numpy()
    rows = []
    for row in range(mask.shape[0]):
        for segment in np.unique(segments[row][mask[row]]):
            here = mask[row] & (segments[row] == segment)
            whole = segments[row] == segment
            if batch.parents is not None:  # and what it goes on from
                whole |= (segments[row] >= 0) & (segments[row] == int(batch.parents[row].numpy()[here][0]))
            labels = batch.labels[row].numpy()
            ratio = np.nan_to_num(logprobs[row][here] - behavior[row][here], nan=LARGEST).clip(-LARGEST, LARGEST)
            rows.append(
                {
                    "objective": objective,
                    "mean_abs_log_ratio": float(np.abs(ratio).mean()),
                    "text": runtime.tokenizer.decode(labels[whole].tolist()),
                    "tokens": labels[here].tolist(),
                    "log_ratio": [round(float(value), 6) for value in ratio],
                    "sampler_logprobs": [round(float(value), 6) for value in behavior[row][here]],
                    "advantages": _column(batch.advantages, row, here),
                    "policy_steps": _column(batch.policy_steps, row, here),
                }
            )
    return rows


def _column(tensor: Any, row: int, here: np.ndarray) -> list[float] | None:
    return None if tensor is None else [float(value) for value in tensor[row].numpy()[here]]
