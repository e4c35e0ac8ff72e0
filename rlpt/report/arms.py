"""An experiment's arms side by side: held-out text, held-out success a task, and figures of training; a colour an arm,
a line a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpt.errors import DataError
from rlpt.report.metrics import Points, RunMetrics, read_metrics, smooth
from rlpt.report.style import COLOURS, MUTED, heading, label_ends, new_figure, save, styled

TEXT = "bits_per_byte"


@dataclass(frozen=True)
class Panel:
    """One plot: what it shows of a run."""

    title: str
    unit: str
    points: Callable[[RunMetrics], Points]
    marker: str = "o"  # of single measurements
    is_share: bool = False
    is_text: bool = False


def plot_arms(title: str, runs: Mapping[str, Sequence[Path]], path: Path, figures: Sequence[str] = ()) -> Path:
    """Draws `runs` (arm -> run folders, one a seed) into `path`: all that was evaluated, and the training `figures`
    (OBJECTIVE/NAME). Raises DataError where there is none of it."""
    metrics = {arm: [read_metrics(folder) for folder in folders] for arm, folders in runs.items()}
    every = [run for seeds in metrics.values() for run in seeds]
    panels = [panel for panel in _panels(every, figures) if any(panel.points(run) for run in every)]
    if not panels:
        raise DataError(
            f"{path.parent}: nothing to draw: no run was evaluated and no claim names a figure of training; set "
            "evaluation.text or evaluation.tasks"
        )
    colours = {arm: COLOURS[index % len(COLOURS)] for index, arm in enumerate(runs)}
    with styled():
        figure, axes = new_figure(len(panels), columns=3, panel=(4.6, 2.9))
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, panel, metrics, colours)
        figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold")
        return save(figure, path)


def _panels(every: Sequence[RunMetrics], figures: Sequence[str]) -> list[Panel]:
    def of_task(task: str) -> Panel:
        unit = "pass@1, held out"
        return Panel(
            task, unit, lambda run: [point[:2] for point in run.evaluated_tasks().get(task, [])], is_share=True
        )

    def of_training(key: str) -> Panel:
        objective, _, name = key.partition("/")
        return Panel(objective, name, lambda run: smooth(run.series.get(key, [])), "")

    text = Panel("Text", "bits per byte, held out", lambda run: run.evaluated(TEXT), is_text=True)
    tasks = sorted({task for run in every for task in run.evaluated_tasks()})
    return [text, *map(of_task, tasks), *map(of_training, figures)]


def _draw(axis: Any, panel: Panel, metrics: Mapping[str, Sequence[RunMetrics]], colours: Mapping[str, str]) -> None:
    ends = []
    for arm, seeds in metrics.items():
        lines = [line for run in seeds if (line := panel.points(run))]
        for line in lines:
            steps, values = zip(*line, strict=True)
            axis.plot(steps, values, color=colours[arm], marker=panel.marker, markersize=4, alpha=0.9, clip_on=False)
        if lines:
            mean = sum(line[-1][1] for line in lines) / len(lines)
            ends.append((mean, arm if panel.is_share else f"{arm} {mean:.2f}", colours[arm]))
    unigram = [points for seeds in metrics.values() for run in seeds if (points := run.evaluated("unigram"))]
    if panel.is_text and unigram:
        axis.axhline(unigram[0][-1][1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        ends.append((unigram[0][-1][1], "unigram", MUTED))
    if panel.is_share:
        axis.set_ylim(-0.02, 1.04)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axis.set_xlim(left=0)
    heading(axis, panel.title, panel.unit)
    label_ends(axis, ends)
    axis.set_xlabel("optimizer steps")
