"""What a preparation consists of: its configuration, its parts, and the figures of the stages that are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig
from data_prep.layout import SOLUTIONS, SPLITS, clean_path, documents_path, part_name
from data_prep.sources.readers import Part, parts
from data_prep.work import Figures, Unit

CHUNK = 10_000  # worked solutions a part


@dataclass(frozen=True)
class Chunk:
    """Solutions [start, stop) of one entry of `synthesize.tasks`."""

    index: int  # among all chunks
    entry: int
    start: int
    stop: int


@dataclass
class Plan:
    """Mutable: `figures` grows stage by stage. The parts depend on the configuration and the sources' files alone."""

    config: PrepConfig
    out: Path
    figures: dict[str, dict[str, Figures]] = field(default_factory=dict)  # stage -> unit -> what its run returned

    @cached_property
    def parts(self) -> dict[str, list[Part]]:
        """By source."""
        return {source.name: parts(source) for source in self.config.sources}

    @cached_property
    def chunks(self) -> list[Chunk]:
        """Of the worked solutions."""
        ranges = [
            (entry, start, min(start + CHUNK, task.documents))
            for entry, task in enumerate(self.config.synthesize.tasks)
            for start in range(0, task.documents, CHUNK)
        ]
        return [Chunk(index, *one) for index, one in enumerate(ranges)]

    def text_parts(self) -> Iterator[tuple[str, int, int]]:
        """(source, its part, number of the part among all) in order."""
        number = 0
        for name, found in self.parts.items():
            for part in found:
                yield name, part.index, number
                number += 1

    def shards(self) -> dict[str, list[int]]:
        """The shards that come out, and the parts of each."""
        found = {
            f"{name}-{side}": [part.index for part in found] for name, found in self.parts.items() for side in SPLITS
        }
        if self.chunks:
            found[f"{SOLUTIONS}-train"] = [chunk.index for chunk in self.chunks]
        return found

    def text_path(self, name: str, index: int) -> Path:
        """Documents of a part of a source, cleaned where that is asked for."""
        path = clean_path if self.config.clean is not None else documents_path
        return path(self.out, name, index)

    def text_unit(self, name: str, index: int) -> str:
        """The unit that writes them."""
        stage = "clean" if self.config.clean is not None else "ingest"
        return f"{stage}/{part_name(name, index)}"

    def total(self, stage: str, key: str, name: str = "") -> int:
        """A figure of a stage, summed over the units of one source (or all)."""
        units = self.figures.get(stage, {}).items()
        return sum(figures.get(key, 0) for unit, figures in units if not name or unit.startswith(f"{name}/"))

    def reasons(self, stage: str, key: str, name: str) -> dict[str, int]:
        """Counts by reason, summed over the units of one source."""
        found: dict[str, int] = {}
        for unit, figures in self.figures.get(stage, {}).items():
            if unit.startswith(f"{name}/"):
                for reason, count in figures.get(key, {}).items():
                    found[reason] = found.get(reason, 0) + count
        return dict(sorted(found.items()))


@dataclass(frozen=True)
class Stage:
    """One step of a preparation. `after`: the stages that all of its units build on, where these do not name the very
    units. `check` raises DataError when all units are done and what they wrote is of no use together."""

    name: str
    after: tuple[str, ...]
    units: Callable[[Plan], list[Unit]]
    check: Callable[[Plan], Any] | None = None
