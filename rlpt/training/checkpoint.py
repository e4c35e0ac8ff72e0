"""Checkpoints: folders that appear whole or not at all, are proven whole before a resume, and leave by rules.

    <run>/checkpoints/step-00000200/   weights/  ranks/  state.json  manifest.json
    <run>/checkpoints/latest           the name of the newest one

A checkpoint is written as `step-00000200.tmp`, flushed, then renamed. All ranks share the folder, write together, and
decide together whether it worked: one rank's full disk ends the save on every rank, with the older checkpoints intact.

A save has three parts: the ranks plan it together, each writes and hashes its own files, and together they make the
checkpoint of them. The second part needs no other rank; in the background it is a thread, which dies with its rank.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlpt.config import CheckpointConfig
from rlpt.errors import CheckpointError
from rlpt.training.checkpoint_files import (
    CheckpointMeta,
    Entries,
    fault,
    file_entries,
    flush,
    read_meta,
    write_manifest,
)
from rlpt.training.checkpoint_weights import Writing

log = logging.getLogger(__name__)
_FOLDER = re.compile(r"step-(\d{8,})")
_PROBE_BYTES = 1 << 16
STATE = "state.json"
_REMEDY = "use another checkpoint"


Plan = Callable[[Path], Writing | None]  # folder -> what is left to do; None: nothing


class CheckpointStore:
    """Writes and reads the checkpoints of one run.

    `agree(ok)` is true when it is called with true on all ranks (an all-reduce); `barrier()` waits for all ranks;
    `gather(value)` is the list of all ranks' values.
    """

    def __init__(
        self,
        run_dir: Path,
        options: CheckpointConfig,
        is_primary: bool = True,
        barrier: Callable[[], None] = lambda: None,
        agree: Callable[[bool], bool] = lambda ok: ok,
        gather: Callable[[Any], list[Any]] = lambda value: [value],
    ) -> None:
        self._root = run_dir / "checkpoints"
        self._options, self._is_primary = options, is_primary
        self._barrier, self._agree, self._gather = barrier, agree, gather
        self._pending: _Pending | None = None

    def save(
        self,
        step: int,
        plan_weights: Plan,
        state: Mapping[str, Any],
        meta: CheckpointMeta,
        rank_files: Mapping[str, bytes] | None = None,
        *,
        weights_bytes: int = 0,
        best_step: int | None = None,
        in_background: bool = False,
    ) -> Path:
        """Writes the checkpoint of `step`; every rank calls it. Returns its folder.

        `plan_weights(folder)` is called on every rank; `state` (JSON-able) is the primary rank's; `rank_files`
        {name: contents} are this rank's own, with names that no other rank uses. `weights_bytes`: estimate of what
        all ranks write together. `best_step`: the checkpoint that stays whatever its age. Checkpoints of later
        steps are taken away: they belong to a time line that was left. `in_background`: comes back when everything is
        planned; nothing that `plan_weights` or `state` refer to may be needed as it was then. The checkpoint is there
        after `finish`, which a next save begins with. Raises CheckpointError on all ranks together.
        """
        self.finish()
        final = self._root / f"step-{step:08d}"
        partial = final.with_name(final.name + ".tmp")
        self._together(partial, lambda: self._begin(partial, weights_bytes), primary_only=True)
        pending = _Pending(step, partial, json.dumps(state), meta, dict(rank_files or {}), best_step)
        self._together(partial, lambda: pending.plan(plan_weights))
        self._pending = pending
        pending.start(in_background)
        if not in_background:
            self.finish()
        return final

    @property
    def is_writing(self) -> bool:
        """Whether a save goes on in the background on this rank; `finish` would wait for it."""
        return self._pending is not None and self._pending.is_writing

    def finish(self) -> None:
        """Waits for a save in the background, on all ranks, and makes a checkpoint of it. Raises CheckpointError on
        all ranks together."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        partial, final = pending.folder, pending.folder.with_suffix("")
        self._together(partial, pending.wait)
        self._together(partial, pending.finish)
        entries = {path: entry for part in self._gather(pending.entries) for path, entry in part.items()}

        def complete() -> None:
            (partial / STATE).write_text(pending.state, encoding="utf-8")
            write_manifest(partial, pending.step, pending.meta, entries)
            if final.exists():
                self._discard(final)
            os.rename(partial, final)
            flush(self._root)
            self._point_to(final)

        self._together(partial, complete, primary_only=True)
        if self._is_primary:
            try:
                self._prune(pending.step, pending.best_step)
            except OSError as error:
                log.warning("older checkpoints can't be removed: %s", error)
        self._barrier()

    def load_state(self, folder: Path, meta: CheckpointMeta) -> dict[str, Any]:
        """The state that was saved there. Raises CheckpointError naming each key of `meta` that must not differ."""
        differences = meta.differences(read_meta(folder))
        if differences:
            raise CheckpointError(
                f"{folder}: made with another model, tokenizer or optimizer:\n  "
                + "\n  ".join(differences)
                + "\nset these keys back, or start anew in another run_dir"
            )
        try:
            state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder / STATE}: can't be read: {error}; {_REMEDY}") from None
        return state

    def _together(self, partial: Path, work: Callable[[], None], primary_only: bool = False) -> None:
        """Does one phase, then asks all ranks how it went; after a failure anywhere, all raise CheckpointError."""
        failure: Exception | None = None
        if self._is_primary or not primary_only:
            try:
                work()
            except Exception as error:  # full disks come out of Megatron under many names; all are raised again below
                failure = error
        if self._agree(failure is None):
            return
        if self._is_primary:
            shutil.rmtree(partial, ignore_errors=True)
        self._barrier()  # no rank may end the job while the partial folder is being removed
        if isinstance(failure, CheckpointError):
            raise failure
        reason = "another rank failed" if failure is None else f"{type(failure).__name__}: {failure}"
        raise CheckpointError(
            f"{partial}: can't be written ({reason}); older checkpoints are intact. Check the free space and quota "
            f"there, then start again"
        ) from failure

    def _begin(self, partial: Path, weights_bytes: int) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        for stale in self._root.glob("*.tmp"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        needed, free = int(weights_bytes * 1.2) + (1 << 20), shutil.disk_usage(self._root).free
        if free < needed:
            raise CheckpointError(
                f"checkpoint needs {_megabytes(needed)}, has {_megabytes(free)} at {self._root}; free space there or "
                "lower checkpoint.keep_last; older checkpoints are intact"
            )
        for folder in ("weights", "ranks"):
            (partial / folder).mkdir(parents=True)
        probe = partial / "probe"
        probe.write_bytes(bytes(_PROBE_BYTES))  # a quota or a read-only disk shows here, on one rank alone
        flush(probe)
        probe.unlink()

    def _point_to(self, folder: Path) -> None:
        temporary = self._root / "latest.tmp"
        temporary.write_text(folder.name + "\n", encoding="utf-8")
        flush(temporary)
        os.replace(temporary, self._root / "latest")
        flush(self._root)

    def _prune(self, step: int, best_step: int | None) -> None:
        steps = sorted((_step(folder) for folder in _folders(self._root)), reverse=True)
        earlier = [one for one in steps if one <= step]
        keep = {*earlier[: self._options.keep_last], step, *([] if best_step is None else [best_step])}
        for folder in _folders(self._root):
            if _step(folder) not in keep or _step(folder) > step:
                self._discard(folder)

    def _discard(self, folder: Path) -> None:
        """Away in one move first, so that a kill while deleting leaves no half checkpoint under its name."""
        trash = self._root / ".trash"
        shutil.rmtree(trash, ignore_errors=True)
        trash.mkdir(exist_ok=True)
        os.rename(folder, trash / folder.name)
        shutil.rmtree(trash, ignore_errors=True)


class _Pending:
    """One save on this rank, between its plan and its end."""

    def __init__(
        self,
        step: int,
        folder: Path,
        state: str,
        meta: CheckpointMeta,
        rank_files: Mapping[str, bytes],
        best_step: int | None,
    ) -> None:
        self.step, self.folder, self.state, self.meta, self.best_step = step, folder, state, meta, best_step
        self.entries: Entries = {}  # of this rank's files
        self._rank_files = rank_files
        self._weights: Writing | None = None
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None

    def plan(self, plan_weights: Plan) -> None:
        self._weights = plan_weights(self.folder / "weights")

    def start(self, in_background: bool) -> None:
        if in_background:
            self._thread = threading.Thread(target=self._write, name="checkpoint", daemon=True)
            self._thread.start()
        else:
            self._write()

    @property
    def is_writing(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        if self._weights is not None:
            self._weights.finish()

    def _write(self) -> None:
        try:
            paths = [self.folder / "ranks" / name for name in self._rank_files]
            for path, contents in zip(paths, self._rank_files.values(), strict=True):
                path.write_bytes(contents)
            if self._weights is not None:
                paths += self._weights.write()
            self.entries = file_entries(self.folder, paths)
        except Exception as error:  # of any kind, also in a thread: `wait` raises it
            self._failure = error


def find_latest(run_dir: Path) -> Path | None:
    """The newest good checkpoint of a run; None when the run has none. Reads and hashes files: call it on one rank.

    A bad one is passed over with a warning that says what is wrong. Raises CheckpointError when there are
    checkpoints and none is good: a run never starts afresh in silence.
    """
    root = run_dir / "checkpoints"
    folders = sorted(_folders(root), key=_step, reverse=True)
    faults = []
    for folder in folders:
        found = fault(folder)
        if found is None:
            return folder
        faults.append(found)
        log.warning("checkpoint %s is passed over: %s", folder.name, found)
    if faults or (root / "latest").exists():
        listed = "\n  ".join(faults) or f"{root / 'latest'} names a checkpoint that is not there"
        raise CheckpointError(
            f"{root}: no checkpoint is good:\n  {listed}\nrestore one, or start anew in another run_dir"
        )
    for partial in root.glob("*.tmp"):
        log.warning("%s was never finished; the run starts at step 0", partial)
    return None


def good_checkpoints(run_dir: Path) -> Iterator[Path]:
    """A run's good checkpoints, the newest first. Reads and hashes files: call it on one rank."""
    for folder in sorted(_folders(run_dir / "checkpoints"), key=_step, reverse=True):
        if fault(folder) is None:
            yield folder


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if _FOLDER.fullmatch(path.name)] if root.is_dir() else []


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
