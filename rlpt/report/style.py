"""The look of the plots: few colours, labels at the lines instead of legends, no frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlpt.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, RULE = "#22303c", "#7b8794", "#e4e7eb"
COLOURS = ("#2563a8", "#d9772b", "#2f8f62", "#8a4f9e", "#b8860b", "#c0476b")
TEXT_COLOUR = INK

_SETTINGS: Any = {  # rc parameters
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "savefig.dpi": 150,
}


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib with our settings. Raises ConfigError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("plots need matplotlib; pip install 'rlpt[report]'") from None
    with matplotlib.rc_context(_SETTINGS):
        yield


def new_figure(num_panels: int, columns: int, panel: tuple[float, float]) -> tuple[Any, list[Axes]]:
    """A figure with its panels, `panel` (width, height) inches each, row by row; none left empty."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(columns, num_panels)
    rows = -(-num_panels // columns)
    spacing = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.04, hspace=0.04)
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows + 0.5), layout=spacing)
    grid = figure.add_gridspec(rows, columns)
    return figure, [figure.add_subplot(grid[index // columns, index % columns]) for index in range(num_panels)]


def heading(axis: Axes, title: str, detail: str) -> None:
    """What the panel shows (bold) and in what unit (muted), above it at the left."""
    axis.set_title(title, loc="left", fontweight="bold", fontsize=11, pad=20)
    axis.text(0, 1.02, detail, transform=axis.transAxes, color=MUTED, fontsize=8.5, va="bottom")


def label_ends(axis: Axes, labels: Sequence[tuple[float, str, str]], gap: float = 0.075) -> None:
    """Writes (y, text, colour) beside the right edge at height y, moved apart to `gap` of the panel's height."""
    low, high = axis.get_ylim()
    placed = sorted(((y - low) / (high - low), text, colour) for y, text, colour in labels)
    heights: list[float] = []
    for height, _, _ in placed:
        heights.append(max(height, heights[-1] + gap) if heights else height)
    for index in reversed(range(len(heights))):  # down again where they left the panel
        most = heights[index + 1] - gap if index + 1 < len(heights) else 1.0
        heights[index] = min(heights[index], most)
    for (_, text, colour), height in zip(placed, heights, strict=True):
        axis.text(1.015, height, text, transform=axis.transAxes, color=colour, va="center", fontsize=9)


def save(figure: Any, path: Path) -> Path:
    """Writes the PNG in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
    return path
