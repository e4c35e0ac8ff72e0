"""Figures of training itself for a run's summary: each objective's means over its first and its last steps."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

SHARE = 0.1  # of an objective's steps that count as its first, and as its last


def training_figures(metrics: Path, objectives: Collection[str]) -> dict[str, dict[str, dict[str, float]]]:
    """metrics.jsonl -> objective -> figure -> {"start", "end"}: means over the first and the last tenth of the rows
    that have the figure. Rows of a step that a resumed run took again count as last written; text and lists are
    left out.
    """
    rows: dict[int, dict[str, Any]] = {}
    with open(metrics, encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if "lr" in row:
                rows[row["step"]] = row
    series: dict[str, list[float]] = {}
    for step in sorted(rows):
        for key, value in rows[step].items():
            if key.partition("/")[0] in objectives and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(key, []).append(float(value))
    figures: dict[str, dict[str, dict[str, float]]] = {name: {} for name in objectives}
    for key, values in series.items():
        objective, _, figure = key.partition("/")
        count = max(1, round(SHARE * len(values)))
        figures[objective][figure] = {"start": _mean(values[:count]), "end": _mean(values[-count:])}
    return figures


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
