"""A quantity that grows, measured at several sizes: all ways at all sizes, beside what the laws say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from rlpt.bench.generation import timed
from rlpt.bench.memory import peak_bytes
from rlpt.bench.paired import Figure, run_paired, summarize


@dataclass(frozen=True)
class Way:
    """One way to do an axis's work. Of a size: what prepares one run and yields it, the operations of the run, and the
    bytes that it must hold beyond what is there. A run ends with its result on the host."""

    name: str
    prepare: Callable[[int], AbstractContextManager[Callable[[], Any]]]
    work: Callable[[int], float]
    held: Callable[[int], float]


@dataclass(frozen=True)
class Point:
    """One way at one size. Laws are in their own units: `work` in operations or seconds, `held` in bytes."""

    size: int
    seconds: Figure
    growth: Figure  # seconds over those at the first size, within the rounds
    over_first_way: Figure  # seconds over those of the axis's first way at this size, within the rounds
    work: float
    bytes: int  # at the peak of a run, above what there was before it
    held: float


@dataclass(frozen=True)
class Curve:
    """One way at all sizes."""

    way: str
    points: tuple[Point, ...]

    def law_seconds(self) -> list[float]:
        """What the law says of each size where it is right at the first."""
        first = self.points[0]
        return [first.seconds.median * point.work / first.work for point in self.points]


@dataclass(frozen=True)
class Heading:
    """What grows: its name on the command line, its title and unit, what is measured at what shape, and what is to be
    known of it."""

    axis: str
    title: str
    unit: str
    subject: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Axis(Heading):
    """What grows, and the ways to do it at the sizes."""

    ways: tuple[Way, ...]
    sizes: Sequence[int]


@dataclass(frozen=True)
class Growth(Heading):
    """What grew, as it was measured."""

    curves: tuple[Curve, ...]


Key = tuple[str, int]  # (way, size)


def peaks(axis: Axis, device: torch.device) -> dict[Key, int]:
    """Bytes that a run adds at its peak; each way has run before, at the first size."""
    found = {}
    for way in axis.ways:
        with way.prepare(axis.sizes[0]) as work:
            work()
        for size in axis.sizes:
            with way.prepare(size) as work:
                found[way.name, size] = peak_bytes(work, device)
    return found


def times(axis: Axis, pairs: int) -> dict[Key, list[float]]:
    """Seconds of each round after a run that warms up."""
    runs = {f"{way.name}, {size}": _timed(way, size) for way in axis.ways for size in axis.sizes}
    for once in runs.values():
        once()
    found = run_paired(runs, pairs)
    return {(way.name, size): found[f"{way.name}, {size}"] for way in axis.ways for size in axis.sizes}


def growth(axis: Axis, seconds: Mapping[Key, Sequence[float]], memory: Mapping[Key, int]) -> Growth:
    """Measured figures of an axis beside its laws."""
    found = curves(axis.ways, axis.sizes, seconds, memory)
    return Growth(axis.axis, axis.title, axis.unit, axis.subject, axis.notes, found)


def curves(
    ways: Sequence[Way], sizes: Sequence[int], seconds: Mapping[Key, Sequence[float]], memory: Mapping[Key, int]
) -> tuple[Curve, ...]:
    """Measured figures beside the laws."""

    def point(way: Way, size: int) -> Point:
        mine = seconds[way.name, size]
        return Point(
            size,
            summarize(mine),
            _ratios(mine, seconds[way.name, sizes[0]]),
            _ratios(mine, seconds[ways[0].name, size]),
            way.work(size),
            memory[way.name, size],
            way.held(size),
        )

    return tuple(Curve(way.name, tuple(point(way, size) for size in sizes)) for way in ways)


def _ratios(values: Sequence[float], others: Sequence[float]) -> Figure:
    return summarize([one / other for one, other in zip(values, others, strict=True)])


def _timed(way: Way, size: int) -> Callable[[], float]:
    def once() -> float:
        with way.prepare(size) as work:
            return timed(work)()

    return once


def rows_of(growth: Growth) -> Iterator[list[str]]:
    """The table's rows: measured figures, and the laws' beside them."""
    for curve in growth.curves:
        first, base = curve.points[0], growth.curves[0].points
        for point, mate in zip(curve.points, base, strict=True):
            yield [
                curve.way,
                f"{point.size:,}",
                point.seconds.show(3),
                point.growth.show(),
                f"{point.work / first.work:.2f}",
                point.over_first_way.show(),
                f"{point.work / mate.work:.2f}",
                f"{point.bytes / 2**20:.1f}",
                f"{point.held / 2**20:.1f}",
            ]
