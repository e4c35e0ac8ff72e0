"""The inspection's plots as SVG text for a page: lengths of documents, and how often tokens occur."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.inspection.page_style import COLOURS, INK, MUTED, RULE, VARIABLES
from data_prep.inspection.statistics import Lengths
from rlpt.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SETTINGS: Any = {  # rc parameters
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "inspect",  # the same bytes every time
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
}
_SIZE = (6.2, 3.1)  # inches


def length_plot(shards: Sequence[Lengths]) -> str:
    """Share of each shard's documents by length, in bins that are evenly wide on the logarithmic axis."""

    def draw(axis: Axes) -> None:
        for index, lengths in enumerate(shards):
            shares = lengths.counts / lengths.counts.sum()
            axis.stairs(shares, lengths.edges, color=COLOURS[index], linewidth=1.8)
            axis.stairs(shares, lengths.edges, color=COLOURS[index], fill=True, alpha=0.12)
        axis.set_xscale("log", base=2)
        axis.set_xlim(1, max(int(lengths.edges[-1]) for lengths in shards))
        axis.set_ylim(bottom=0)
        axis.set_xlabel("tokens a document")
        axis.xaxis.set_major_formatter(lambda value, _: _short(value))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")

    return _svg(draw)


def frequency_plot(shards: Sequence[np.ndarray]) -> str:
    """Share of a shard's tokens [V] against its rank among them, both logarithmic; never-used ones are left out."""

    def draw(axis: Axes) -> None:
        for index, counts in enumerate(shards):
            used = np.sort(counts[counts > 0])[::-1]
            at = np.unique(np.geomspace(1, len(used), 400).astype(np.int64)) - 1
            axis.plot(at + 1, used[at] / used.sum(), color=COLOURS[index])
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("rank of the token")
        axis.xaxis.set_major_formatter(lambda value, _: _short(value))
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        axis.minorticks_off()

    return _svg(draw)


def _svg(draw: Callable[[Axes], None]) -> str:
    """What `draw` draws, its colours replaced by the page's variables. Raises ConfigError without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise ConfigError("plots need matplotlib; pip install 'rlpt[report]'") from None
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=_SIZE, layout="constrained")
        figure.patch.set_alpha(0)
        axis = figure.add_subplot()
        axis.patch.set_alpha(0)
        draw(axis)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Type": None, "Format": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]  # without the declaration, which names a DTD elsewhere
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("font: 9px 'sans-serif'", "font: 9px sans-serif")


def _short(value: float) -> str:
    """1, 512, 2k, 1M."""
    for size, unit in ((1 << 20, "M"), (1 << 10, "k")) if np.log2(value) % 1 == 0 else ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
