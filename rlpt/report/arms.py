"""An experiment's arms side by side: held-out text and held-out success a task, a colour an arm, a line a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlpt.errors import DataError
from rlpt.report.metrics import Points, RunMetrics, read_metrics
from rlpt.report.style import COLOURS, MUTED, heading, label_ends, new_figure, save, styled


def plot_arms(title: str, runs: Mapping[str, Sequence[Path]], path: Path) -> Path:
    """Draws `runs` (arm -> run folders, one a seed) into `path`. Raises DataError where none was evaluated."""
    metrics = {arm: [read_metrics(folder) for folder in folders] for arm, folders in runs.items()}
    every = [run for seeds in metrics.values() for run in seeds]
    tasks = sorted({task for run in every for task in run.evaluated_tasks()})
    panels = (["bits_per_byte"] if any(run.evaluated("bits_per_byte") for run in every) else []) + tasks
    if not panels:
        raise DataError(
            f"{path.parent}: no run of the experiment was evaluated; set evaluation.text or evaluation.tasks"
        )
    colours = {arm: COLOURS[index % len(COLOURS)] for index, arm in enumerate(runs)}
    with styled():
        figure, axes = new_figure(len(panels), columns=3, panel=(4.6, 2.9))
        for axis, panel in zip(axes, panels, strict=True):
            is_text = panel == "bits_per_byte" and panel not in tasks
            ends = []
            for arm, seeds in metrics.items():
                lines = [line for run in seeds if (line := _points(run, panel, is_text))]
                for line in lines:
                    steps, values = zip(*line, strict=True)
                    axis.plot(steps, values, color=colours[arm], marker="o", markersize=4, alpha=0.9, clip_on=False)
                if lines:
                    mean = sum(line[-1][1] for line in lines) / len(lines)
                    ends.append((mean, f"{arm} {mean:.2f}" if is_text else arm, colours[arm]))
            unigram = next((points for run in every if (points := run.evaluated("unigram"))), [])
            if is_text and unigram:
                axis.axhline(unigram[-1][1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
                ends.append((unigram[-1][1], "unigram", MUTED))
            if not is_text:
                axis.set_ylim(-0.02, 1.04)
                axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
            axis.set_xlim(left=0)
            heading(axis, "Text" if is_text else panel, "bits per byte, held out" if is_text else "pass@1, held out")
            label_ends(axis, ends)
            axis.set_xlabel("optimizer steps")
        figure.suptitle(title, x=0.012, ha="left", fontsize=14, fontweight="bold")
        return save(figure, path)


def _points(run: RunMetrics, panel: str, is_text: bool) -> Points:
    if is_text:
        return run.evaluated("bits_per_byte")
    return [(step, value) for step, value, _ in run.evaluated_tasks().get(panel, [])]
