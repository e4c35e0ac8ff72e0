"""Units of work: run in several processes, each finished by a marker that is written last.

A unit reads files and writes files of its own; what it writes depends on its inputs alone, so that any number of
processes or machines gives the same bytes. Whatever ends a run, finished units stay and the next run goes on.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.progress import Progress
from rlpt.data.manifest import write_json
from rlpt.errors import DataError

Figures = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One unit of a stage. `run` must be picklable (a function of a module, or a `partial` of one) and returns figures
    that later stages and the manifest use."""

    name: str  # e.g. text/00003
    run: Callable[[], Figures]
    outputs: tuple[Path, ...]
    inputs: Any = None  # JSON-able: what it depends on beside other units' outputs
    after: tuple[str, ...] | None = None  # STAGE/UNIT that it reads; None: all units of the stages before


@dataclass(frozen=True)
class Markers:
    """The markers of one stage below `out`/.stages: a unit's key, its outputs' sizes and its figures."""

    out: Path
    stage: str

    def path(self, unit: str) -> Path:
        """Where the unit's marker is."""
        return self.out / ".stages" / self.stage / f"{unit}.json"

    def is_fresh(self, unit: Unit, key: str) -> bool:
        """Whether the unit was finished with the same inputs and its outputs are there."""
        try:
            values = json.loads(self.path(unit.name).read_bytes())
        except FileNotFoundError:
            return False
        except ValueError:
            return False  # not one of ours, or damaged: the unit is done again
        if values["key"] != key:
            return False
        files = {self.out / name: size for name, size in values["outputs"].items()}
        return all(path.is_file() and path.stat().st_size == size for path, size in files.items())

    def figures(self, unit: str) -> Figures:
        """What the unit's run returned."""
        found: Figures = json.loads(self.path(unit).read_bytes())["figures"]
        return found

    def write(self, unit: Unit, key: str, figures: Figures) -> None:
        """Marks it as finished."""
        sizes = {str(path.relative_to(self.out)): path.stat().st_size for path in unit.outputs}
        write_json(self.path(unit.name), {"key": key, "outputs": sizes, "figures": figures})

    def remove(self, unit: Unit) -> None:
        """Before it is run again."""
        self.path(unit.name).unlink(missing_ok=True)


class Workers:
    """Processes that do units, begun when the first stage has work for more than one, and kept for the stages after it.
    A context manager."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    @property
    def pool(self) -> ProcessPoolExecutor:
        """Spawned, not forked: what a process holds does not depend on what this one has done."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self.count, mp_context=multiprocessing.get_context("spawn"))
        return self._pool

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def run_units(
    markers: Markers, units: Sequence[Unit], keys: Mapping[str, str], workers: Workers, share: str = ""
) -> int:
    """Runs those that are not finished; returns how many. `share`: whose these are, for the progress lines.

    Raises the first error of a unit once those under way have ended: they stay, and no further ones begin. Raises
    DataError when a process was killed.
    """
    if not units:  # the stage is switched off
        return 0
    waiting = [unit for unit in units if not markers.is_fresh(unit, keys[unit.name])]
    with Progress(f"{markers.stage}{share}", len(units), len(units) - len(waiting)) as progress:
        if min(workers.count, len(waiting)) <= 1:
            for unit in waiting:
                progress.finished(_run(markers, unit, keys[unit.name]))
        else:
            _run_in_processes(markers, waiting, keys, workers, progress)
    return len(waiting)


def _run(markers: Markers, unit: Unit, key: str) -> Figures:
    markers.remove(unit)
    figures = unit.run()
    markers.write(unit, key, figures)
    return figures


def _run_in_processes(
    markers: Markers, waiting: Sequence[Unit], keys: Mapping[str, str], workers: Workers, progress: Progress
) -> None:
    """No more units are handed out than there are processes, so that after an error nothing new begins."""
    left, failed = list(reversed(waiting)), None
    under_way: dict[Future[Figures], Unit] = {}
    while under_way or (left and failed is None):
        while left and failed is None and len(under_way) < workers.count:
            unit = left.pop()
            under_way[workers.pool.submit(_run, markers, unit, keys[unit.name])] = unit
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            unit = under_way.pop(future)
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                names = ", ".join(sorted([unit.name, *(one.name for one in under_way.values())]))
                raise DataError(
                    f"{markers.out}: a process was killed while it worked on {markers.stage} of {names} (out of "
                    "memory?); finished parts are kept: run it again, with fewer --workers or a smaller part_bytes"
                )
            if error is None:
                progress.finished(future.result())
            failed = failed or error
    if failed is not None:
        raise failed
