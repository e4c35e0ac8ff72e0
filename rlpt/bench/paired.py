"""Paired, interleaved runs: in every round each contender runs once, so that a busy machine slows all of them alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlpt.errors import UserError

_WIDTH = 140  # of a table that goes to a file


@dataclass(frozen=True)
class Figure:
    """Median and range of one quantity over the rounds."""

    median: float
    smallest: float
    largest: float

    def show(self, digits: int = 2) -> str:
        """`median (smallest-largest)`."""
        return f"{self.median:.{digits}f} ({self.smallest:.{digits}f}-{self.largest:.{digits}f})"


def summarize(values: Sequence[float]) -> Figure:
    """Median, smallest and largest of at least one value."""
    return Figure(statistics.median(values), min(values), max(values))


def run_paired(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round. Each call runs it once and returns its seconds; the order turns by one
    place from round to round."""
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(contenders[name]())
            print(f"round {index + 1}/{rounds}  {name}: {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return seconds


def ratios(seconds: Mapping[str, Sequence[float]], ours: str) -> dict[str, Figure]:
    """How many times as long as `ours` each contender took, compared within the rounds."""
    return {
        name: summarize([theirs / mine for theirs, mine in zip(values, seconds[ours], strict=True)])
        for name, values in seconds.items()
    }


def time_process(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> float:
    """Wall-clock seconds of a whole process, its output in `log`. Raises UserError with the log's end if it fails."""
    with open(log, "wb") as file:
        start = time.perf_counter()
        code = subprocess.run(
            list(command), stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        ).returncode
        seconds = time.perf_counter() - start
    if code:
        end = log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
        raise UserError(f"{' '.join(command)}: exit code {code}\n{end}")
    return seconds


def machine() -> dict[str, Any]:
    """What the figures were measured on; `load` is the mean number of waiting processes over the last minute."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """A table on stdout and its notes below."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(header):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(table)
    for note in notes:
        console.print(Text(note))


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Writes figures as JSON; `Figure`s become objects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=2, default=asdict) + "\n", encoding="utf-8")
