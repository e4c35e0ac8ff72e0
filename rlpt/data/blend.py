"""Blends of shards: the share of rows that each gives by weight, by tokens or by temperature, and by step of the run.

Shares change where a phase of the run says so, at once or in a straight line from phase to phase. Which shard a row
comes from is settled greedily: the one that has given least of what its shares so far would have it give.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rlpt.registry import suggest


@dataclass(frozen=True)
class BlendEntry:
    """One shard of a blend."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    path: Path  # shard prefix, e.g. runs/data/quickstart/text-train
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0  # relative to the other entries; see `mix`

    @property
    def label(self) -> str:
        """FOLDER/NAME, as figures and phases call it."""
        return f"{self.path.resolve().parent.name}/{self.path.name}"


@dataclass(frozen=True)
class Phase:
    """Other weights from a point of the run on.

    `begin`: a fraction of the run's steps (0.8), or a step number (8000). `weights`: shard (NAME, or FOLDER/NAME) ->
    weight, 0 for none of it; a shard that is left out has its weight of `blend`.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    begin: int | float
    weights: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.begin == 1 and isinstance(self.begin, int):
            raise ValueError("begin=1: write 1.0 for the end of the run; a step number is 2 or more")
        if isinstance(self.begin, float) and not 0 <= self.begin <= 1:
            raise ValueError(f"begin={self.begin}: a fraction of the run is from 0.0 to 1.0, a step a whole number")
        if self.begin < 0:
            raise ValueError(f"begin={self.begin}: must be 0 or more")

    def step(self, steps: int) -> int:
        """Where it begins in a run of `steps` optimizer steps; a fraction is always reached."""
        return self.begin if isinstance(self.begin, int) else min(round(self.begin * steps), max(steps - 1, 0))


@dataclass(frozen=True)
class BlendSchedule:
    """Optimizer step -> share of rows of each shard. Point p holds from `steps[p]` on; `steps[0]` is 0."""

    steps: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]  # of each point; each sums to 1
    is_linear: bool  # shares move in a straight line from point to point

    def at(self, step: int) -> tuple[float, ...]:
        """The shares in force at `step`."""
        point, done = self._place(step)
        if not done:
            return self.shares[point]
        ends = zip(self.shares[point], self.shares[point + 1], strict=True)
        return tuple(start * (1 - done) + end * done for start, end in ends)

    def rows(self, rows_at: Callable[[int], int], steps: int) -> list[float]:
        """Rows of each shard in a run of `steps` steps that takes `rows_at(step)` rows in all."""
        totals = [0.0] * len(self.steps)
        for step in range(steps):
            (point, done), rows = self._place(step), rows_at(step)
            totals[point] += rows * (1 - done)
            if done:
                totals[point + 1] += rows * done
        return [
            sum(total * shares[shard] for total, shares in zip(totals, self.shares, strict=True))
            for shard in range(len(self.shares[0]))
        ]

    def _place(self, step: int) -> tuple[int, float]:
        """The last point that is not after `step`, and the share of the way to the next that is behind it."""
        point = bisect_right(self.steps, step) - 1
        if not self.is_linear or point + 1 == len(self.steps):
            return point, 0.0
        return point, (step - self.steps[point]) / (self.steps[point + 1] - self.steps[point])


@dataclass(frozen=True)
class BlendOptions:
    """Which shards are read, and in what shares.

    `mix`: `weights` (shares of rows are as the weights are); `tokens` (as weight times the shard's tokens, so that a
    weight says how many epochs a shard gets beside the others); `temperature` (as weight times tokens^(1/T): T = 1 is
    `tokens`, a large T `weights`; the exponent is the alpha of Conneau et al. 2020, 1911.02116).
    `phases`: other weights later in the run, e.g. more worked solutions as the learning rate falls. `transition`:
    `step` (at once where a phase begins), or `linear` (shares move in a straight line from one's beginning to the
    next's; `blend` itself is the first, at step 0, unless a phase begins there).
    """

    blend: Annotated[list[BlendEntry], Field(min_length=1)]
    mix: Literal["weights", "tokens", "temperature"] = "weights"
    temperature: Annotated[float, Field(ge=1)] | None = None  # T of mix: temperature
    phases: list[Phase] = field(default_factory=list)
    transition: Literal["step", "linear"] = "step"

    def __post_init__(self) -> None:
        labels = [entry.label for entry in self.blend]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(
                    f"blend: shard {label} is listed twice; give its weight once (shards of different folders need "
                    "folders of different names)"
                )
        if (self.mix == "temperature") != (self.temperature is not None):
            raise ValueError(
                f"mix={self.mix} with temperature={self.temperature}: `mix: temperature` needs one, and only it"
            )
        if self.transition == "linear" and not self.phases:
            raise ValueError("transition=linear: there are no phases to move to; give `phases`")
        begins = [phase.begin for phase in self.phases]
        if len({type(begin) for begin in begins if begin}) > 1:
            raise ValueError(f"phases: begin at {begins}: give all as fractions of the run, or all as step numbers")
        for index, (before, begin) in enumerate(pairwise(begins), 1):
            if begin <= before:
                raise ValueError(f"phases.{index}.begin={begin}: must be after the phase before it, at {before}")
        for index in range(len(self.phases)):
            self._weights(index)

    def schedule(self, tokens: Sequence[int], steps: int) -> BlendSchedule:
        """The shares in a run of `steps` optimizer steps, of shards that hold `tokens`."""
        points = {0: self._shares([entry.weight for entry in self.blend], tokens)}
        for index, phase in enumerate(self.phases):
            points[phase.step(steps)] = self._shares(self._weights(index), tokens)
        return BlendSchedule(tuple(points), tuple(points.values()), self.transition == "linear")

    def _shares(self, weights: Sequence[float], tokens: Sequence[int]) -> tuple[float, ...]:
        if self.mix == "tokens":
            weights = [weight * count for weight, count in zip(weights, tokens, strict=True)]
        elif self.temperature is not None:
            most, alpha = max(tokens), 1 / self.temperature
            weights = [weight * (count / most) ** alpha for weight, count in zip(weights, tokens, strict=True)]
        total = sum(weights)
        return tuple(weight / total for weight in weights)

    def _weights(self, index: int) -> list[float]:
        """Every shard's weight in a phase. Raises ValueError for a name that is none, or not one shard's, or all 0."""
        weights = [entry.weight for entry in self.blend]
        named: dict[int, str] = {}
        for name, weight in self.phases[index].weights.items():
            where = f"phases.{index}.weights.{name}"
            found = [place for place, entry in enumerate(self.blend) if name in (entry.label, entry.path.name)]
            if not found:
                raise ValueError(
                    f"{where}: no such shard in blend{suggest(name, [one.path.name for one in self.blend])}"
                )
            if len(found) > 1:
                labels = ", ".join(self.blend[place].label for place in found)
                raise ValueError(f"{where}: is the name of {len(found)} shards; write one of {labels}")
            if found[0] in named:
                raise ValueError(f"{where}: is the shard of {named[found[0]]} too; give its weight once")
            named[found[0]], weights[found[0]] = name, weight
        if not any(weights):
            raise ValueError(f"phases.{index}.weights: all are 0; leave a shard to read")
        return weights


def next_in_blend(counts: Sequence[int], shares: Sequence[float], due: Sequence[float] = (), since: int = 0) -> int:
    """The shard that is furthest behind what it should have given (shares sum to 1): Megatron's greedy blending.

    `counts`: rows given; `due`: rows that each should have given when there were `since` in all, from where `shares`
    have held. A shard without a share gives none. However shares change, none is a whole row ahead (as long as none of
    them is 0), or further behind than 1 + 1/2 + ... + 1/n rows: the bound of emptying the fullest of n cups again and
    again (Dietz and Sleator 1987).
    """
    rows = max(sum(counts) - since, 1)
    errors = [
        before + share * rows - count if share else float("-inf")
        for count, share, before in zip(counts, shares, due or [0.0] * len(counts), strict=True)
    ]
    return errors.index(max(errors))


class BlendCounter:
    """Rows given by each shard, and due from it. What is due adds up under the shares of its time, so that a change of
    shares leaves nothing to catch up on."""

    def __init__(self, shares: Sequence[float]) -> None:
        self.shares = list(shares)
        self.counts = [0] * len(self.shares)
        self.due, self.since = [0.0] * len(self.shares), 0  # see next_in_blend

    def move_to(self, shares: Sequence[float]) -> None:
        """Other shares from the next row on; the same shares change nothing, not even by rounding."""
        if list(shares) != self.shares:
            rows = sum(self.counts) - self.since
            self.due = [before + share * rows for before, share in zip(self.due, self.shares, strict=True)]
            self.since, self.shares = self.since + rows, list(shares)

    def next(self) -> int:
        """The shard of the next row, which is then counted."""
        chosen = next_in_blend(self.counts, self.shares, self.due, self.since)
        self.counts[chosen] += 1
        return chosen
