"""The stages in order. What is done for the same inputs is left as it is; what is not is done, part by part."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_prep.config import PrepConfig, fingerprint
from data_prep.inspection.terminal import inspect, inspect_page, verify
from data_prep.overlap.recall import show_recall
from data_prep.plan import Plan, Stage
from data_prep.stages import clean, decontaminate, dedup, encode, ingest, manifest, split, synthesize, tokenizer
from data_prep.work import Markers, Unit, Workers, run_units
from rlpt.errors import ConfigError, DataError

_VERSION = 2  # of the stages' outputs; raise it when a stage's code changes what it writes
STAGES = {
    stage.name: stage
    for stage in (
        Stage("ingest", (), ingest.units, ingest.check),
        Stage("synthesize", (), synthesize.units),
        Stage("clean", ("ingest",), clean.units),
        Stage("sign", ("ingest", "clean"), dedup.sign_units),
        Stage("dedup", ("sign",), dedup.match_units),
        Stage("decontaminate", ("ingest", "clean", "synthesize"), decontaminate.units),
        Stage("split", ("ingest", "clean", "synthesize", "dedup", "decontaminate"), split.units, split.check),
        Stage("sample", ("split",), tokenizer.sample_units),
        Stage("tokenizer", ("sample",), tokenizer.tokenizer_units),
        Stage("encode", ("split", "tokenizer"), encode.encode_units),
        Stage("merge", ("encode",), encode.merge_units),
        Stage("manifest", ("ingest", "synthesize", "clean", "split", "merge"), manifest.units),
    )
}
PHASES = {"dedup": ("sign", "dedup"), "tokenizer": ("sample", "tokenizer"), "encode": ("encode", "merge")}
CHECKS: dict[str, Callable[[PrepConfig, Path], None]] = {"inspect": inspect, "verify": verify, "recall": show_recall}
NAMES = [*STAGES, *CHECKS, "all"]


@dataclass(frozen=True)
class Share:
    """Which units of a stage a process does: every `of`-th from `index` on. One machine of several has a share."""

    index: int = 0
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Share:
        """Of `3/16`. Raises ConfigError."""
        index, slash, of = text.partition("/")
        if not (slash and index.isdecimal() and of.isdecimal() and int(index) < int(of)):
            raise ConfigError(f"--task {text}: write INDEX/COUNT with 0 <= INDEX < COUNT, e.g. 3/16")
        return cls(int(index), int(of))


def run(name: str, config: PrepConfig, workers: int = 1, share: Share | None = None, html: Path | None = None) -> None:
    """Runs a stage with its phases, a check, or `all` (every stage, then verify).

    `share`: this process does a part of one phase, beside others that do the rest. `html`: where `inspect` writes a
    page. Raises DataError when an earlier stage is missing or stale, or another preparation is at work in the folder.
    """
    out = config.directory
    synthesize.create_tasks(config)
    with _locked(out, shared=share is not None):
        if html is not None:
            print(f"inspect: wrote {inspect_page(config, out, html)}")
        elif name in CHECKS:
            CHECKS[name](config, out)
        if name in CHECKS:
            return
        phases = phases_of(name) if share is None else (name,)
        if name == "all" and share is not None:
            raise ConfigError(f"--task: a share is of one phase; name one of {', '.join(STAGES)}")
        with Workers(workers) as processes:
            run_stages(Plan(config, out), phases, processes, share or Share())
        if name == "all":
            verify(config, out)


def phases_of(name: str) -> tuple[str, ...]:
    """What a command runs, in order. Raises ConfigError for a check, which has none."""
    if name in CHECKS:
        raise ConfigError(f"{name} is no stage that is shared out; run it by itself")
    return tuple(STAGES) if name == "all" else PHASES.get(name, (name,))


def run_stages(plan: Plan, names: tuple[str, ...], workers: Workers, share: Share) -> None:
    """Runs these, in order; the stages before them must be finished."""
    keys: dict[str, str] = {}
    for stage in STAGES.values():
        needed = any(stage.name in _before(name) for name in names)
        if stage.name not in names and not needed:
            continue
        units, markers = stage.units(plan), Markers(plan.out, stage.name)
        mine = {unit.name: _key(stage, unit, keys) for unit in units}
        keys |= {f"{stage.name}/{name}": key for name, key in mine.items()}
        if stage.name in names:
            run_units(markers, units[share.index :: share.of], mine, workers)
        if share.of > 1 and stage.name in names:
            return  # whether the other shares are done is seen by the next stage
        stale = next((unit for unit in units if not markers.is_fresh(unit, mine[unit.name])), None)
        if stale is not None:
            raise DataError(
                f"{plan.out}: stage {names[0]} needs the outputs of {stage.name} ({stale.name} is missing or stale); "
                f"run stage {stage.name} first, or all"
            )
        plan.figures[stage.name] = {unit.name: markers.figures(unit.name) for unit in units}
        if stage.check is not None:
            stage.check(plan)


def _key(stage: Stage, unit: Unit, keys: dict[str, str]) -> str:
    """A hash that changes with the unit's own inputs and with those of every unit that it builds on."""
    after = unit.after
    if after is None:
        after = tuple(name for name in keys if name.partition("/")[0] in stage.after)
    return fingerprint(_VERSION, stage.name, unit.name, unit.inputs, [keys[name] for name in after])


def _before(name: str) -> set[str]:
    """All stages that `name` builds on."""
    after = STAGES[name].after
    return set(after).union(*(_before(stage) for stage in after))


@contextmanager
def _locked(out: Path, shared: bool) -> Iterator[None]:
    """Holds the folder for this process, or with others that do shares of one stage. Whoever holds it alone removes
    what killed runs have left half written."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{out}: another data_prep is at work here; wait for it, or set output=FOLDER") from None
        if not shared:
            for path in list(out.rglob("*.tmp")):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        yield
