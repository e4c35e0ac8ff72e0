"""A run's `metrics.jsonl` as series: training figures by step, and evaluations."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlpt.errors import DataError

Points = list[tuple[float, float]]  # (step, value), by step


@dataclass(frozen=True)
class RunMetrics:
    """What a run has logged so far."""

    name: str
    series: dict[str, Points] = field(default_factory=dict)  # training figure -> points
    evaluations: list[dict[str, Any]] = field(default_factory=list)  # records with "step", by step

    def below(self, name: str) -> dict[str, Points]:
        """{NAME: points} of all figures `OBJECTIVE/name/NAME`."""
        parts = {tuple(key.split("/", 2)): points for key, points in self.series.items()}
        return {key[2]: points for key, points in parts.items() if len(key) == 3 and key[1] == name}

    def of_objectives(self, name: str) -> dict[str, Points]:
        """{OBJECTIVE: points} of all figures `OBJECTIVE/name`."""
        return {
            key.split("/")[0]: points
            for key, points in self.series.items()
            if key.count("/") == 1 and key.endswith(f"/{name}")
        }

    def evaluated(self, key: str) -> Points:
        """Points of one figure of the evaluations, those without it left out."""
        return [(one["step"], one[key]) for one in self.evaluations if isinstance(one.get(key), int | float)]

    def evaluated_tasks(self) -> dict[str, list[tuple[float, float, tuple[float, float] | None]]]:
        """{TASK: [(step, pass@1, its interval or None)]}."""
        tasks: dict[str, list[tuple[float, float, tuple[float, float] | None]]] = {}
        for one in self.evaluations:
            for name, figures in (one.get("tasks") or {}).items():
                if isinstance(figures.get("pass@1"), int | float):
                    interval = tuple(figures["interval"]) if figures.get("interval") else None
                    tasks.setdefault(name, []).append((one["step"], figures["pass@1"], interval))
        return tasks


def read_metrics(run_dir: Path) -> RunMetrics:
    """Reads `metrics.jsonl`; a last line that is still being written is left out.

    Raises DataError where the file is missing, or names the line that is not a JSON object with a step.
    """
    path = run_dir / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the folder of a run that has begun to train") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read: {error}") from None
    metrics = RunMetrics(run_dir.resolve().name)
    evaluations: dict[float, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break
        row = _parse(path, number, line)
        step = row.pop("step")
        if isinstance(row.get("evaluation"), dict):
            evaluations[step] = {**row.pop("evaluation"), "step": step}
        for key, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                metrics.series.setdefault(key, []).append((step, value))
    metrics.evaluations.extend(evaluations[step] for step in sorted(evaluations))
    return metrics


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}:{number}: not JSON ({error}); take that line out") from None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise DataError(f"{path}:{number}: not an object with a step; take that line out")
    return row


def smooth(points: Points, parts: int = 40) -> Points:
    """Running mean over the last 1/`parts` of the points (at least the point itself)."""
    window = max(1, len(points) // parts)
    result, total = [], 0.0
    for index, (step, value) in enumerate(points):
        total += value - (points[index - window][1] if index >= window else 0.0)
        result.append((step, total / min(index + 1, window)))
    return result
