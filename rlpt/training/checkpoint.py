"""Checkpoints: folders that appear whole or not at all, are proven whole before a resume, and leave by rules.

    <run>/checkpoints/step-00000200/   weights/  ranks/  state.json  manifest.json
    <run>/checkpoints/latest           the name of the newest one

A checkpoint is written as `step-00000200.tmp`, flushed, then renamed. All ranks share the folder, write together, and
decide together whether it worked: one rank's full disk ends the save on every rank, with the older checkpoints intact.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlpt.config import CheckpointConfig
from rlpt.distributed.writer import tie_writer_to_rank
from rlpt.errors import CheckpointError
from rlpt.training.checkpoint_files import CheckpointMeta, check_pickle, fault, flush, read_meta, write_manifest

log = logging.getLogger(__name__)
_FOLDER = re.compile(r"step-(\d{8,})")
_PROBE_BYTES = 1 << 16
STATE = "state.json"
_REMEDY = "use another checkpoint"


class CheckpointStore:
    """Writes and reads the checkpoints of one run.

    `agree(ok)` is true when it is called with true on all ranks (an all-reduce); `barrier()` waits for all ranks.
    """

    def __init__(
        self,
        run_dir: Path,
        options: CheckpointConfig,
        is_primary: bool = True,
        barrier: Callable[[], None] = lambda: None,
        agree: Callable[[bool], bool] = lambda ok: ok,
    ) -> None:
        self._root = run_dir / "checkpoints"
        self._options, self._is_primary, self._barrier, self._agree = options, is_primary, barrier, agree

    def save(
        self,
        step: int,
        write_weights: Callable[[Path], None],
        state: Mapping[str, Any],
        meta: CheckpointMeta,
        rank_files: Mapping[str, bytes] | None = None,
        *,
        weights_bytes: int = 0,
        best_step: int | None = None,
    ) -> Path:
        """Writes the checkpoint of `step`; every rank calls it. Returns its folder.

        `write_weights(folder)` is called on every rank; `state` (JSON-able) is the primary rank's; `rank_files`
        {name: contents} are this rank's own, with names that no other rank uses. `weights_bytes`: estimate of what
        all ranks write together. `best_step`: the checkpoint that stays whatever its age. Checkpoints of later
        steps are taken away: they belong to a time line that was left. Raises CheckpointError on all ranks together.
        """
        final = self._root / f"step-{step:08d}"
        partial = final.with_name(final.name + ".tmp")

        def write_own() -> None:
            write_weights(partial / "weights")
            for name, contents in (rank_files or {}).items():
                (partial / "ranks" / name).write_bytes(contents)

        def finish() -> None:
            (partial / STATE).write_text(json.dumps(state), encoding="utf-8")
            write_manifest(partial, step, meta)
            if final.exists():
                self._discard(final)
            os.rename(partial, final)
            flush(self._root)
            self._point_to(final)

        self._together(partial, lambda: self._begin(partial, weights_bytes), primary_only=True)
        self._together(partial, write_own)
        self._together(partial, finish, primary_only=True)
        if self._is_primary:
            try:
                self._prune(step, best_step)
            except OSError as error:
                log.warning("older checkpoints can't be removed: %s", error)
        self._barrier()
        return final

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


def save_weights(folder: Path, sharded_state_dict: dict[str, Any]) -> None:
    """Writes a Megatron sharded state dict into `folder` (exists, empty), from all ranks together.

    Raises RuntimeError when a shard can't be written (Megatron tells all ranks then).
    """
    from megatron.core import dist_checkpointing
    from torch.distributed.checkpoint import CheckpointException

    tie_writer_to_rank()
    try:
        dist_checkpointing.save(sharded_state_dict, str(folder))
    except CheckpointException as error:  # a BaseException: it would pass by every handler of errors
        raise RuntimeError(_ranks_failures(error.failures)) from error


def load_weights(folder: Path, sharded_state_dict: dict[str, Any]) -> dict[str, Any]:
    """Reads into a Megatron sharded state dict, at any parallel layout; returns the loaded state dict.

    Raises CheckpointError, before anything is unpickled, for an index that isn't one, and for whatever Megatron
    refuses.
    """
    import torch
    from megatron.core import dist_checkpointing
    from torch.distributed.checkpoint import CheckpointException

    check_pickle(folder / ".metadata")
    try:
        with torch.no_grad():  # the distributed optimizer's tensors are views of leaves
            loaded: dict[str, Any] = dist_checkpointing.load(sharded_state_dict, str(folder))
    except CheckpointException as error:
        raise CheckpointError(f"{folder}: can't be read ({_ranks_failures(error.failures)}); {_REMEDY}") from error
    except Exception as error:  # missing keys, other shapes, torn files: each another type
        raise CheckpointError(f"{folder}: can't be read ({type(error).__name__}: {error}); {_REMEDY}") from error
    return loaded


def stored_names(folder: Path) -> set[str]:
    """Names of the tensors that `save_weights` put into `folder`. Raises CheckpointError where its index isn't one."""
    from torch.distributed.checkpoint import FileSystemReader

    check_pickle(folder / ".metadata")
    return set(FileSystemReader(folder).read_metadata().state_dict_metadata)


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if _FOLDER.fullmatch(path.name)] if root.is_dir() else []


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _ranks_failures(failures: Mapping[int, Any]) -> str:
    """`rank 1: RuntimeError: ...` for each failure that torch gathered (on one rank; empty on the others)."""
    causes = (f"rank {rank}: {type(one[0]).__name__}: {one[0]}" for rank, one in sorted(failures.items()))
    return "; ".join(causes) or "the failure is another rank's"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
