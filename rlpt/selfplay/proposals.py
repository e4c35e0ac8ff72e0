"""The buffer of proposals: what the policy made itself to learn from, with where each came from and how hard it was.

Buffers of Absolute Zero (Zhao et al. 2025, arXiv:2505.03335, section 3.3): one for each way of reasoning and language;
whatever is valid enters, whether it earned a reward or not; the oldest leave. It takes in only the notes of episodes,
in problem order, so that it is the same on every rank and for any number of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from rlpt.errors import ConfigError, DataError
from rlpt.registry import describe
from rlpt.tasks.base import keyed_hash
from rlpt.tasks.programs.language import language

RECENT = 256  # of a buffer's newest: those that `recent_share` of the draws are among
VALID = ""  # the fault of a proposal that has none
FAULTS = ("shape", "limits", "unstable", "known")  # cut short or not the shape asked for; does not run within the
# level's limits; another output when it is run again; proposed before


@dataclass
class Triplet:
    """A program with inputs and its outputs. Mutable: attempts at it are counted."""

    text: str  # as it was proposed
    program: str
    inputs: list[str]
    outputs: list[str]
    level: int  # whose limits it is within
    number: int = -1  # of the run's triplets; -1: the seed
    step: int = 0  # optimizer step at which it was proposed
    parents: list[int] = field(default_factory=list)  # numbers of those that the proposer was shown
    attempts: int = 0  # of solvers
    solved: int = 0

    @property
    def solve_rate(self) -> float:
        """In [0, 1]; 0 before the first attempt."""
        return self.solved / self.attempts if self.attempts else 0.0


@dataclass(frozen=True)
class Note:
    """What one episode leaves in the buffer. It crosses between ranks as its dict."""

    mode: str  # the buffer: task/language
    fault: str = VALID
    text: str = ""
    program: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    level: int = 0
    parents: list[int] = field(default_factory=list)
    attempts: int = 0
    solved: int = 0
    replayed: int = -1  # number of the triplet that was solved in its place


class Proposals:
    """Triplets by mode, oldest first. Implements `selfplay.base.Memory`."""

    def __init__(self, capacity: int = 16_384) -> None:
        self.capacity = capacity  # of each mode
        self.triplets: dict[str, list[Triplet]] = {}
        self.next_number = 0
        self._known: dict[str, set[str]] = {}
        self._figures: dict[str, float] = {}

    def knows(self, mode: str, text: str) -> bool:
        """Whether such a proposal is in the buffer."""
        return text in self._known.get(mode, ())

    def draw(
        self, mode: str, count: int, key: int, recent_share: float, seeds: Sequence[Triplet] = ()
    ) -> list[Triplet]:
        """Up to `count` different triplets, a pure function of the key and of what is there: each is one of the newest
        `RECENT` with the chance `recent_share`, else any. `seeds` count as the oldest."""
        pool = [*seeds, *self.triplets.get(mode, ())]
        if len(pool) <= count:
            return pool
        rng, chosen = random.Random(keyed_hash("draw", key)), dict[int, Triplet]()
        while len(chosen) < count:
            newest = max(count, RECENT) if rng.random() < recent_share else len(pool)
            at = rng.randrange(max(0, len(pool) - newest), len(pool))
            chosen[at] = pool[at]
        return list(chosen.values())

    def add(self, mode: str, triplet: Triplet) -> bool:
        """Takes it in under the next number, unless it is known; the oldest goes where there are too many."""
        known = self._known.setdefault(mode, set())
        if triplet.text in known:
            return False
        kept = self.triplets.setdefault(mode, [])
        triplet.number = self.next_number
        self.next_number += 1
        kept.append(triplet)
        known.add(triplet.text)
        while len(kept) > self.capacity:
            known.discard(kept.pop(0).text)
        return True

    def record(self, notes: Sequence[Mapping[str, Any]], policy_step: int) -> None:
        """Takes in valid proposals and counts attempts at replayed ones; sets the figures of this play."""
        read = [Note(**note) for note in notes]
        by_number = {one.number: one for kept in self.triplets.values() for one in kept} if read else {}
        for note in read:
            if note.fault == VALID:
                triplet = Triplet(note.text, note.program, list(note.inputs), list(note.outputs), note.level)
                triplet.step, triplet.parents = policy_step, list(note.parents)
                triplet.attempts, triplet.solved = note.attempts, note.solved
                self.add(note.mode, triplet)
            elif note.replayed in by_number:
                by_number[note.replayed].attempts += note.attempts
                by_number[note.replayed].solved += note.solved
        self._figures = _figures(read)

    def metrics(self) -> dict[str, float]:
        """Of the last play: the shares of proposals that are `well_formed`, that run within the limits, new or not
        (`runs`: what the paper calls valid) and that are `valid`; the share of those that run that is `novel`; of the
        valid ones `solve_rate`, `learnable` (share with a rate between 0 and 1) and `program_length`;
        `valid/TASK/LANGUAGE` and `solve_rate/...`; and how many triplets there are, `buffer`. What there was nothing to
        measure by is left out.
        """
        size = sum(map(len, self.triplets.values()))
        return {**self._figures, "buffer": float(size)}

    def state_dict(self) -> dict[str, Any]:
        """JSON-able and exact."""
        triplets = {mode: [asdict(one) for one in kept] for mode, kept in self.triplets.items()}
        return {"next_number": self.next_number, "triplets": triplets}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict` was taken; with a smaller capacity, without the oldest."""
        self.next_number = state["next_number"]
        self.triplets = {
            mode: [Triplet(**one) for one in kept[-self.capacity :]] for mode, kept in state["triplets"].items()
        }
        self._known = {mode: {one.text for one in kept} for mode, kept in self.triplets.items()}

    def export_file(self, path: Path) -> int:
        """Writes a JSON line a triplet, by mode, oldest first. Returns how many."""
        lines = [
            json.dumps({"mode": mode, **asdict(one)}) for mode, kept in sorted(self.triplets.items()) for one in kept
        ]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return len(lines)

    def import_file(self, path: Path) -> int:
        """Takes in what `export_file` wrote, under new numbers; parents that came with them go by these. Returns how
        many were new. Raises DataError naming file, line and remedy for what is not such a file."""
        read = read_file(path)
        numbers: dict[int, int] = {}
        for mode, triplet in read:
            old = triplet.number
            triplet.parents = [numbers[parent] for parent in triplet.parents if parent in numbers]
            if self.add(mode, triplet):
                numbers[old] = triplet.number
        return len(numbers)


class _Line(BaseModel):
    """A line of an exported buffer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mode: str = Field(pattern="^[^/]+/[^/]+$")
    text: str = Field(min_length=1)
    program: str = Field(min_length=1)
    inputs: list[str] = Field(min_length=1)
    outputs: list[str] = Field(min_length=1)
    level: int = Field(ge=0)
    number: int
    step: int = Field(ge=0)
    parents: list[int]
    attempts: int = Field(ge=0)
    solved: int = Field(ge=0)


_LINE = TypeAdapter(_Line)


def read_file(path: Path) -> list[tuple[str, Triplet]]:
    """(mode, triplet) of each line of an exported buffer. Raises DataError naming file, line and remedy."""
    remedy = "mend or delete the line, or export the buffer again"
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: can't be read as an exported buffer ({error}); name a file that export made"
        ) from None
    for at, line in enumerate(lines, start=1):
        try:
            values = _LINE.validate_json(line).model_dump()
        except ValidationError as error:
            raise DataError(f"{path}, line {at}: {describe(error)}; {remedy}") from None
        mode, triplet = values.pop("mode"), Triplet(**values)
        if fault := _fault(mode, triplet):
            raise DataError(f"{path}, line {at}: {fault}; {remedy}")
        found.append((mode, triplet))
    return found


def _fault(mode: str, triplet: Triplet) -> str:
    """Why an imported triplet can't be what was proposed once; "" where it can."""
    try:
        spoken = language(mode.partition("/")[2])
    except ConfigError as error:
        return str(error)
    if triplet.level >= len(spoken.levels):
        return f"level {triplet.level} is outside 0..{len(spoken.levels) - 1}"
    if triplet.solved > triplet.attempts:
        return f"{triplet.solved} of {triplet.attempts} attempts solved it"
    if len(triplet.inputs) != len(triplet.outputs):
        return f"{len(triplet.inputs)} inputs with {len(triplet.outputs)} outputs"
    for given, output in zip(triplet.inputs, triplet.outputs):
        found = spoken.output(triplet.program, given, triplet.level)
        if found != output:
            return f"the program gives {found!r} for {given!r}, and not {output!r}"
    return ""


def _figures(notes: Sequence[Note]) -> dict[str, float]:
    """Of the proposals of one play; see `Proposals.metrics`."""
    if not notes:
        return {}
    valid = [note for note in notes if note.fault == VALID]
    runs = [note for note in notes if note.fault in (VALID, "known")]
    figures = {
        "valid": len(valid) / len(notes),
        "runs": len(runs) / len(notes),
        "well_formed": fmean(note.fault != "shape" for note in notes),
    }
    if runs:
        figures["novel"] = len(valid) / len(runs)
    if valid:
        figures["solve_rate"] = fmean(note.solved / note.attempts for note in valid)
        figures["learnable"] = fmean(0 < note.solved < note.attempts for note in valid)
        figures["program_length"] = fmean(len(note.program) for note in valid)
    for mode in sorted({note.mode for note in notes}):
        own = [note.solved / note.attempts for note in valid if note.mode == mode]
        figures[f"valid/{mode}"] = len(own) / sum(note.mode == mode for note in notes)
        if own:
            figures[f"solve_rate/{mode}"] = fmean(own)
    return figures
