"""One run's learning curves as a picture: text at the left, reasoning at the right, strong what is held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlpt.errors import DataError
from rlpt.report.metrics import Points, RunMetrics, read_metrics, smooth
from rlpt.report.style import COLOURS, MUTED, TEXT_COLOUR, heading, label_ends, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panel = Callable[["Axes", RunMetrics], None]


def plot_learning(run_dir: Path) -> Path:
    """Draws `RUN/learning.png` from `RUN/metrics.jsonl` and returns its path; panels without figures are left out.

    Raises DataError where there is nothing to draw, ConfigError where matplotlib is missing.
    """
    run_dir = Path(run_dir)
    metrics = read_metrics(run_dir)
    panels = [panel for panel, has_figures in _panels(metrics) if has_figures]
    if not panels:
        raise DataError(f"{run_dir / 'metrics.jsonl'}: holds no figure to draw yet; try again after some steps")
    with styled():
        figure, axes = new_figure(len(panels), columns=2, panel=(5.8, 2.9))
        last = max((points[-1][0] for points in metrics.series.values()), default=0)
        last = max([last, *(one["step"] for one in metrics.evaluations), 1])
        for axis, panel in zip(axes, panels, strict=True):
            panel(axis, metrics)
            axis.set_xlim(0, last)
        for axis in axes[-2:]:
            axis.set_xlabel("optimizer steps")
        figure.suptitle(metrics.name, x=0.012, ha="left", fontsize=14, fontweight="bold")
        return save(figure, run_dir / "learning.png")


def task_colours(metrics: RunMetrics) -> dict[str, str]:
    """One colour a task, the same in every panel."""
    names = sorted({*metrics.evaluated_tasks(), *metrics.below("success"), *metrics.below("level")})
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}


def _panels(metrics: RunMetrics) -> list[tuple[Panel, bool]]:
    """Panels in reading order, and whether this run has figures for them."""
    return [
        (_held_out_text, bool(metrics.evaluated("bits_per_byte"))),
        (_success, bool(metrics.evaluated_tasks() or metrics.below("success"))),
        (_text_loss, bool(_text_losses(metrics))),
        (_levels, bool(metrics.below("level"))),
        (_throughput, "tokens_per_second" in metrics.series),
        (_reward, bool(metrics.of_objectives("reward"))),
    ]


def _held_out_text(axis: Axes, metrics: RunMetrics) -> None:
    points = metrics.evaluated("bits_per_byte")
    _line(axis, points, TEXT_COLOUR, marker="o")
    labels = [(points[-1][1], f"{points[-1][1]:.2f}", TEXT_COLOUR)]
    unigram = metrics.evaluated("unigram")
    if unigram:
        axis.axhline(unigram[-1][1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1.2)
        labels.append((unigram[-1][1], f"unigram {unigram[-1][1]:.2f}", MUTED))
    heading(axis, "Text, held out", "bits per byte; lower is better")
    label_ends(axis, labels)


def _success(axis: Axes, metrics: RunMetrics) -> None:
    colours, held_out = task_colours(metrics), metrics.evaluated_tasks()
    axis.set_ylim(-0.02, 1.04)
    ends: dict[str, float] = {}
    for name, points in metrics.below("success").items():
        _line(axis, smooth(points), colours[name], alpha=0.35 if held_out else 1.0, linewidth=1.2)
        ends[name] = points[-1][1]
    for name, evaluated in held_out.items():
        _line(axis, [(step, value) for step, value, _ in evaluated], colours[name], marker="o")
        for step, _, interval in evaluated:
            if interval is not None:
                axis.plot([step, step], interval, color=colours[name], linewidth=1, alpha=0.6)
        ends[name] = evaluated[-1][1]
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    both = "pass@1 held out (dots) and at the level in training (pale)"
    heading(axis, "Reasoning", both if held_out else "success at the level in training")
    label_ends(axis, [(value, name, colours[name]) for name, value in ends.items()])


def _text_losses(metrics: RunMetrics) -> dict[str, Points]:
    """Losses of the objectives that earn no reward."""
    played = metrics.of_objectives("reward")
    return {name: points for name, points in metrics.of_objectives("loss").items() if name not in played}


def _text_loss(axis: Axes, metrics: RunMetrics) -> None:
    ends = []
    for points in _text_losses(metrics).values():
        _line(axis, points, TEXT_COLOUR, alpha=0.2, linewidth=0.9)
        _line(axis, smooth(points), TEXT_COLOUR)
        ends.append((smooth(points)[-1][1], f"{smooth(points)[-1][1]:.2f}", TEXT_COLOUR))
    heading(axis, "Next-token loss in training", "nats per token")
    label_ends(axis, ends)


def _levels(axis: Axes, metrics: RunMetrics) -> None:
    colours, levels = task_colours(metrics), metrics.below("level")
    ends = []
    for index, (name, points) in enumerate(sorted(levels.items())):
        shift = 0.06 * (index - (len(levels) - 1) / 2)  # so that equal levels stay apart
        steps, values = [step for step, _ in points], [value + shift for _, value in points]
        axis.plot(steps, values, color=colours[name], drawstyle="steps-post")
        ends.append((values[-1], name, colours[name]))
    axis.yaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    heading(axis, "Curriculum", "level of each task")
    label_ends(axis, ends)


def _reward(axis: Axes, metrics: RunMetrics) -> None:
    ends = []
    for points in metrics.of_objectives("reward").values():
        _line(axis, points, COLOURS[0], alpha=0.2, linewidth=0.9)
        _line(axis, smooth(points), COLOURS[0])
        ends.append((smooth(points)[-1][1], f"{smooth(points)[-1][1]:.2f}", COLOURS[0]))
    heading(axis, "Reward", "mean of an episode, at the curriculum's levels")
    label_ends(axis, ends)


def _throughput(axis: Axes, metrics: RunMetrics) -> None:
    points = metrics.series["tokens_per_second"]
    _line(axis, points, TEXT_COLOUR, alpha=0.2, linewidth=0.9)
    _line(axis, smooth(points), TEXT_COLOUR)
    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    heading(axis, "Speed", "tokens a second")
    label_ends(axis, [(smooth(points)[-1][1], f"{smooth(points)[-1][1]:,.0f}", TEXT_COLOUR)])


def _line(axis: Axes, points: Points, colour: str, marker: str = "", **options: float) -> None:
    steps, values = zip(*points, strict=True)
    axis.plot(steps, values, color=colour, marker=marker, markersize=4.5, clip_on=not marker, **options)  # type: ignore[arg-type]
