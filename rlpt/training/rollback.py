"""What a run remembers of its rollbacks: back to the last good checkpoint, past the batches since.

`<run>/rollbacks.json` lists them: the step at which the run gave up, the checkpoint that it went back to, and how far
each source had read. It is written before anything else is changed, so a run that is killed after a rollback goes on
with the same batches, and with its count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlpt.config import ScheduleConfig
from rlpt.errors import CheckpointError
from rlpt.evaluation.summary import write_json
from rlpt.training.state import TrainState
from rlpt.training.step_figures import StepResult

FILE = "rollbacks.json"


@dataclass(frozen=True)
class Rollback:
    """One of them."""

    step: int  # after which the run went back
    to: int  # the step of the checkpoint
    cursors: dict[str, dict[str, Any]]  # objective -> its source's cursor at `step`


def read_rollbacks(run_dir: Path) -> list[Rollback]:
    """In their order. Raises CheckpointError for a file that can't be read."""
    path = run_dir / FILE
    try:
        return [Rollback(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: can't be read: {error}; restore it, or start anew in another run_dir") from None


def add_rollback(run_dir: Path, count: int, rollback: Rollback) -> None:
    """Writes one more behind the `count` that hold."""
    _write(run_dir, [*read_rollbacks(run_dir)[:count], rollback])


def rollbacks_until(run_dir: Path, step: int, count: int) -> list[Rollback]:
    """Those that hold for a run that goes on from the checkpoint of `step`, in whose state there are `count`; the file
    forgets the others. They belong to what comes after that step, and will be made again."""
    known = read_rollbacks(run_dir)
    kept = known[:count]
    for one in known[count:]:
        if one.to != step:
            break
        kept.append(one)
    if len(kept) < len(known):
        _write(run_dir, kept)
    return kept


def with_cursors(sources: Mapping[str, Mapping[str, Any]], rollback: Rollback) -> dict[str, dict[str, Any]]:
    """The states of a checkpoint's sources, moved past what had been read when the run went back to it."""
    return {name: {**state, **rollback.cursors.get(name, {})} for name, state in sources.items()}


def nonfinite_alert(step: int, result: StepResult) -> tuple[str, str]:
    """Title and text for a step that was not finite, once or twice."""
    if result.transient:
        text = f"step {step}: not finite, but finite when the same batches were run again: doubt the hardware"
        return "transient non-finite step", text
    losses = ", ".join(f"{name} {value}" for name, value in result.losses.items())
    how = f"loss {losses}, gradient norm {result.gradient_norm}, twice"
    return "non-finite step", f"step {step}: {how}: the update was left out"


def cannot_go_back(state: TrainState, schedule: ScheduleConfig, result: StepResult) -> str:
    """Why a run ends here."""
    text = nonfinite_alert(state.step, result)[1]
    row = f"{state.skipped_steps} in a row (schedule.max_skipped_steps={schedule.max_skipped_steps})"
    back = f"{state.rollbacks} rollbacks" if state.rollbacks else "no rollback"
    why = "" if state.rollbacks >= schedule.max_rollbacks else ", as there is no good checkpoint to go back to"
    return (
        f"{text}; that was {row}, after {back} (schedule.max_rollbacks={schedule.max_rollbacks}){why}: lower "
        "optimizer.lr, or resume from an older checkpoint"
    )


def _write(run_dir: Path, rollbacks: Sequence[Rollback]) -> None:
    write_json(run_dir / FILE, [asdict(one) for one in rollbacks])
