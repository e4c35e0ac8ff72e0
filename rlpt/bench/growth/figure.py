"""The picture: a column an axis, time above and memory below, measured points with their ranges and laws as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from rlpt.bench.growth.curves import Curve, Growth
from rlpt.report.style import COLOURS, MUTED, heading, new_figure, save, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL = (3.9, 3.3)  # inches
_NOTE_WIDTH = 55  # characters of a note's line a column
_MIB = 2**20
_DECADE = 10  # a panel whose points are further apart than so many times has a logarithmic scale


def plot_growth(found: Sequence[Growth], path: Path) -> Path:
    """Draws all axes and returns `path`. Raises ConfigError where matplotlib is missing."""
    with styled():
        figure, panels = new_figure(2 * len(found), columns=len(found), panel=_PANEL)
        for above, below, growth in zip(panels, panels[len(found) :], found, strict=False):
            _time(above, growth)
            _memory(below, growth)
        figure.supxlabel(_notes(found), x=0.012, ha="left", fontsize=8, color=MUTED)
        return save(figure, path)


def _time(axis: Axes, growth: Growth) -> None:
    for curve, colour in zip(growth.curves, COLOURS, strict=False):
        seconds = [point.seconds for point in curve.points]
        low = [one.median - one.smallest for one in seconds]
        high = [one.largest - one.median for one in seconds]
        _draw(axis, curve, [one.median for one in seconds], curve.law_seconds(), colour, (low, high))
    axis.set_ylabel("seconds")
    heading(axis, growth.title, "time; the law is scaled to the first point")
    _finish(axis, growth)


def _memory(axis: Axes, growth: Growth) -> None:
    for curve, colour in zip(growth.curves, COLOURS, strict=False):
        measured = [point.bytes / _MIB for point in curve.points]
        _draw(axis, curve, measured, [point.held / _MIB for point in curve.points], colour)
    axis.set_ylabel("MiB")
    heading(axis, growth.title, "memory; the law is not scaled")
    _finish(axis, growth)


def _draw(
    axis: Axes,
    curve: Curve,
    measured: Sequence[float],
    law: Sequence[float],
    colour: str,
    ranges: tuple[list[float], list[float]] | None = None,
) -> None:
    sizes = [point.size for point in curve.points]
    axis.errorbar(
        sizes, measured, ranges, fmt="o", markersize=4.5, color=colour, elinewidth=1.2, capsize=2.5, label=curve.way
    )
    axis.plot(sizes, law, color=colour, linestyle=(0, (4, 3)), linewidth=1.2, label="its law")


def _finish(axis: Axes, growth: Growth) -> None:
    sizes = [point.size for point in growth.curves[0].points]
    axis.set_xscale("log", base=2)
    low, high = axis.dataLim.intervaly
    if high > _DECADE * low:
        axis.set_yscale("log")
        axis.yaxis.get_major_locator().set_params(subs=(1, 2, 5))  # type: ignore[call-arg]
    else:
        axis.set_ylim(bottom=0)
    axis.minorticks_off()
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.set_xlabel(growth.unit)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    handles, labels = axis.get_legend_handles_labels()
    order = [at for pair in zip(range(len(labels) // 2, len(labels)), range(len(labels) // 2)) for at in pair]
    axis.legend([handles[at] for at in order], [labels[at] for at in order], frameon=False, fontsize=7.5, loc="best")


def _notes(found: Sequence[Growth]) -> str:
    lines = ["Medians of paired runs, bars from the smallest to the largest."]
    for growth in found:
        lines.append(f"{growth.title}: {growth.subject}. {' '.join(growth.notes)}")
    return "\n".join(fill(line, _NOTE_WIDTH * max(2, len(found)), subsequent_indent="    ") for line in lines)
