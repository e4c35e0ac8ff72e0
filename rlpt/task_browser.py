"""`rlpt tasks [PATTERN]` and `rlpt tasks gallery`: what is registered as a task, measured when asked."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from rlpt.errors import ConfigError
from rlpt.report.gallery import write_gallery
from rlpt.tasks.catalogue import Entry, options, select
from rlpt.tasks.profile import LevelProfile, profile, throughput

BARS = "▁▂▃▄▅▆▇█"
_PIPED_WIDTH = 120  # columns where stdout is no terminal
_PROGRESS_INTERVAL = 5.0  # seconds between lines where stderr is no terminal

Measured = list[tuple[Entry, list[LevelProfile]]]  # no levels: unusable, or not measured


def list_tasks(pattern: str, kind: str, source: str, num_problems: int, fast: bool, as_json: bool) -> None:
    """Prints the table, or one JSON list. `num_problems` a level, or for 0 as many as a time budget allows."""
    entries = select(pattern, kind, source)
    rows: Measured = [(entry, []) for entry in entries] if fast else measure(entries, num_problems)
    if as_json:
        print("[" + ",\n".join(json.dumps(record(*row)) for row in rows) + "]")  # a task a line
    else:
        _print_table(rows)
    if mixture := _mixture(rows):
        print(mixture, file=sys.stderr if as_json else sys.stdout)


def build_gallery(pattern: str, kind: str, source: str, num_problems: int, path: Path) -> Path:
    """Measures, writes the page and returns its path."""
    return write_gallery(measure(select(pattern, kind, source), num_problems), path)


def measure(entries: Sequence[Entry], num_problems: int = 0) -> Measured:
    """Profiles of the entries that can be used; progress on stderr, and nothing on stdout whatever a library prints."""
    with redirect_stdout(sys.stderr):
        return [_measured(entry, num_problems) for entry in _with_progress(entries)]


def record(entry: Entry, levels: Sequence[LevelProfile]) -> dict[str, Any]:
    """What `--json` says about a task; figures are null where nothing was measured."""
    about: dict[str, Any] = {"name": entry.name, "kind": entry.kind, "source": entry.source, "field": entry.field}
    if entry.unusable:
        return {**about, "unusable": entry.unusable}
    if entry.unavailable:
        return {**about, "unavailable": entry.unavailable}
    task = entry.create()
    figures = ("problems_per_second", "random_success", "reference_success", "num_problems")
    measured: dict[int, dict[str, Any]] = {one.level: {key: getattr(one, key) for key in figures} for one in levels}
    return {
        **about,
        "unique_answer": task.unique_answer,
        "options": options(type(task)),
        "throughput": throughput(levels) if levels else None,
        "levels": [
            {"level": level, "answer_limit": task.answer_limit(level)} | measured.get(level, dict.fromkeys(figures))
            for level in range(task.max_level + 1)
        ],
    }


def _measured(entry: Entry, num_problems: int) -> tuple[Entry, list[LevelProfile]]:
    try:
        return entry, profile(entry.create(), num_problems) if entry.is_usable else []
    except (ConfigError, RuntimeError) as error:
        if entry.source == "native":
            error.add_note(f"while measuring task {entry.name}")
            raise
        # Its library is there and fails on this machine: no reason to lose what the others' measuring took minutes for.
        print(f"error: task {entry.name}: {error}", file=sys.stderr)
        return replace(entry, unavailable=f"failed here: {error}"), []


def _with_progress(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The entries, with a bar on a terminal and else a line now and then."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as bar:
            row = bar.add_task("", total=len(entries))
            for entry in entries:
                bar.update(row, description=f"measuring {entry.name}")
                yield entry
                bar.advance(row)
        return
    printed = time.monotonic()
    for number, entry in enumerate(entries, 1):
        if time.monotonic() - printed >= _PROGRESS_INTERVAL:
            printed = time.monotonic()
            print(f"measuring {entry.name}, {number} of {len(entries)}", file=sys.stderr, flush=True)
        yield entry


def _mixture(rows: Measured) -> str:
    rates = [throughput(levels) for entry, levels in rows if levels and entry.source == "native"]
    if not rates:
        return ""
    return (
        f"{harmonic_mean(rates):,.0f} problems/s over the uniform mixture of {len(rates)} native families and their "
        "levels (made and verified, one core)"
    )


def _print_table(rows: Measured) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, _PIPED_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("task", no_wrap=True)
    table.add_column("levels", justify="right")
    table.add_column("random\nat 0", justify="right")
    table.add_column("random\nat top", justify="right")
    table.add_column("reference solver\nby level")
    table.add_column("problems/s", justify="right")
    for number, ((field, kind, source), group) in enumerate(
        groupby(rows, key=lambda row: (row[0].field, row[0].kind, row[0].source))
    ):
        if number:
            table.add_section()
        table.add_row(Text(field, style="bold"), "", "", "", Text(f"{kind}, {source}", style="dim"))
        for entry, levels in group:
            table.add_row(Text(f"  {entry.name}"), *_cells(entry, levels, console))
    console.print(table)


def _cells(entry: Entry, levels: Sequence[LevelProfile], console: Console) -> list[Text]:
    if not entry.is_usable:
        reason = f"unusable: {entry.unusable}" if entry.unusable else entry.unavailable
        return [Text(""), Text(""), Text(""), Text(reason, style="yellow")]
    top = entry.create().max_level
    if not levels:
        return [Text(f"0-{top}")]
    reference = [one.reference_success for one in levels]
    ends = f"{reference[0]:.0%}-{reference[-1]:.0%}"
    bars = "".join(BARS[min(int(value * len(BARS)), len(BARS) - 1)] for value in reference)
    return [
        Text(f"0-{top}"),
        Text(f"{levels[0].random_success:.1%}"),
        Text(f"{levels[-1].random_success:.1%}"),
        Text(ends if console.options.ascii_only else f"{bars} {ends}"),
        Text(f"{throughput(levels):,.0f}"),
    ]
