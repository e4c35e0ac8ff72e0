"""The stages in order, each skipped when its marker says that the same inputs gave the outputs that are there."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.config import SOLUTIONS, PrepConfig, fingerprint
from data_prep.encode import encode, make_manifest, shard_inputs
from data_prep.ingest import SPLITS, documents_path, ingest, split, split_path
from data_prep.inspection import inspect, verify
from data_prep.readers import inputs_fingerprint
from data_prep.synthesize import create_tasks, synthesize
from data_prep.tokenizer import train_tokenizer
from rlpt.data.manifest import MANIFEST, write_json
from rlpt.data.tokenizer import META_FILE, MODEL_FILE
from rlpt.errors import DataError

_VERSION = 1  # of the stages' outputs; raise it when a stage's code changes what it writes


@dataclass(frozen=True)
class Stage:
    """One restartable step. `inputs` is hashed, with the hashes of `after`, to tell whether its outputs are fresh."""

    name: str
    after: tuple[str, ...]
    inputs: Callable[[PrepConfig], Any]
    run: Callable[[PrepConfig, Path], dict[str, Any]]
    outputs: Callable[[PrepConfig, Path], list[Path]]


def _encode(config: PrepConfig, out: Path) -> dict[str, Any]:
    sides = _figures(out, "split")
    counts = {f"{source}-{side}": count for source, by_side in sides.items() for side, count in by_side.items()}
    counts[f"{SOLUTIONS}-train"] = sum(_figures(out, "synthesize").values())
    return encode(config, out, counts)


def _manifest(config: PrepConfig, out: Path) -> dict[str, Any]:
    return make_manifest(config, out, _figures(out, "encode"))


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest",
            (),
            lambda config: [inputs_fingerprint(source) for source in config.sources],
            ingest,
            lambda config, out: [documents_path(out, source.name) for source in config.sources],
        ),
        Stage(
            "synthesize",
            (),
            lambda config: [config.seed, config.synthesize.model_dump(mode="json")],
            synthesize,
            lambda config, out: [documents_path(out, SOLUTIONS)],
        ),
        Stage(
            "split",
            ("ingest",),
            lambda config: config.split.model_dump(mode="json"),
            split,
            lambda config, out: [split_path(out, s.name, side) for s in config.sources for side in SPLITS],
        ),
        Stage(
            "tokenizer",
            ("split", "synthesize"),
            lambda config: [config.seed, config.tokenizer.model_dump(mode="json")],
            train_tokenizer,
            lambda config, out: [out / "tokenizer" / MODEL_FILE, out / "tokenizer" / META_FILE],
        ),
        Stage(
            "encode",
            ("split", "synthesize", "tokenizer"),
            lambda config: None,
            _encode,
            lambda config, out: [
                out / f"{name}{end}" for name in shard_inputs(config, out) for end in (".bin", ".idx")
            ],
        ),
        Stage(
            "manifest",
            ("encode",),
            lambda config: config.model_dump(mode="json"),
            _manifest,
            lambda config, out: [out / MANIFEST],
        ),
    )
}
CHECKS: dict[str, Callable[[PrepConfig, Path], None]] = {"inspect": inspect, "verify": verify}
NAMES = [*STAGES, *CHECKS, "all"]


def run(name: str, config: PrepConfig) -> None:
    """Runs a stage, a check, or `all` (every stage, then verify). Raises DataError when an earlier stage is missing or
    stale, or another preparation is at work in the folder."""
    out = config.directory
    create_tasks(config)
    with _locked(out):
        keys = {} if name in CHECKS else _keys(config)
        if name in CHECKS:
            CHECKS[name](config, out)
        elif name == "all":
            for stage in STAGES.values():
                _run_stage(stage, config, out, keys[stage.name])
            verify(config, out)
        else:
            stale = next((before for before in _earlier(name) if not _is_fresh(before, out, keys[before])), None)
            if stale:
                raise DataError(f"{out}: stage {name} needs the outputs of {stale}; run stage {stale} first, or all")
            _run_stage(STAGES[name], config, out, keys[name])


def _run_stage(stage: Stage, config: PrepConfig, out: Path, key: str) -> None:
    if _is_fresh(stage.name, out, key):
        print(f"{stage.name}: up to date", file=sys.stderr, flush=True)
        return
    _marker(out, stage.name).unlink(missing_ok=True)
    figures = stage.run(config, out)
    sizes = {str(path.relative_to(out)): path.stat().st_size for path in stage.outputs(config, out)}
    write_json(_marker(out, stage.name), {"key": key, "outputs": sizes, "figures": figures})


def _is_fresh(name: str, out: Path, key: str) -> bool:
    marker = _marker(out, name)
    if not marker.is_file():
        return False
    values = json.loads(marker.read_bytes())
    if values["key"] != key:
        return False
    files = {out / name: size for name, size in values["outputs"].items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in files.items())


def _keys(config: PrepConfig) -> dict[str, str]:
    """A hash for each stage that changes with the stage's own inputs and with those of every stage before it."""
    keys: dict[str, str] = {}
    for stage in STAGES.values():
        before = [keys[name] for name in stage.after]
        keys[stage.name] = fingerprint(_VERSION, stage.name, stage.inputs(config), before)
    return keys


def _earlier(name: str) -> list[str]:
    """Stages that `name` builds on, first ones first."""
    found: list[str] = []
    for before in STAGES[name].after:
        found += [stage for stage in (*_earlier(before), before) if stage not in found]
    return found


def _marker(out: Path, name: str) -> Path:
    return out / ".stages" / f"{name}.json"


def _figures(out: Path, name: str) -> dict[str, Any]:
    return json.loads(_marker(out, name).read_bytes())["figures"]


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Holds the folder for this process."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{out}: another data_prep is at work here; wait for it, or set output=FOLDER") from None
        yield
