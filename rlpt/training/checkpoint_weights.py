"""The tensors of a checkpoint: Megatron's sharded format, loadable at any parallel layout.

A save is planned by all ranks, written by each, in a thread where training is to go on, and finished by all. Files are
written by Megatron's own function, so that they are the same bytes either way.
"""

from __future__ import annotations

import queue
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from rlpt.errors import CheckpointError
from rlpt.training.checkpoint_files import check_pickle

_REMEDY = "use another checkpoint"


class Writing(Protocol):
    """What is left to do of a save that the ranks have planned."""

    def write(self) -> Sequence[Path]:
        """Writes this rank's files, which it returns. Needs no other rank, so a thread may call it."""
        ...

    def finish(self) -> None:
        """To be called on all ranks when all have written."""
        ...


def plan_weights(folder: Path, sharded_state_dict: dict[str, Any], copies: bool = False) -> Writing:
    """Plans with all ranks to write a Megatron sharded state dict into `folder` (exists, empty).

    `copies`: tensors are copied to the host's memory at once, and may change while they are written.
    """
    import torch
    from megatron.core import dist_checkpointing
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.strategies import filesystem_async
    from torch.distributed.checkpoint import CheckpointException

    # Megatron's own queue of results is a process of its own, which outlives a rank that is killed.
    filesystem_async._results_queue = queue.Queue()
    data = (getattr(one, "data", None) for one in nested_values(sharded_state_dict))
    living = {one.untyped_storage().data_ptr() for one in data if isinstance(one, torch.Tensor)}
    try:
        request = dist_checkpointing.save(sharded_state_dict, str(folder), async_sharded_save=True)
    except CheckpointException as error:  # a BaseException: it would pass by every handler of errors
        raise RuntimeError(_ranks_failures(error.failures)) from error
    return _MegatronWriting(request, living if copies else set())


class _MegatronWriting:
    """Megatron's request, carried out by threads of this process in place of processes that are forked from it."""

    def __init__(self, request: Any, living: set[int]) -> None:
        self._finish, self._results = request.finalize_fns, None
        self._buckets: list[Any] = []  # (path, key, (bytes, tensors)) of each file of this rank
        if request.async_fn is not None:
            (self._transforms, _), (_, _, self._results) = request.async_fn.args, request.async_fn_args
            for path, key, (texts, tensors) in request.preload_fn():
                own = [(item, _apart(tensor, living)) for item, tensor in tensors]
                self._buckets.append((path, key, (texts, own)))

    def write(self) -> Sequence[Path]:
        """Failures too are results: `finish` tells all ranks whose they are."""
        if not self._buckets:
            return []
        with ThreadPoolExecutor(len(self._buckets)) as pool:
            outcomes = list(pool.map(self._write_file, range(len(self._buckets))))
        failures = [one for one in outcomes if isinstance(one, Exception)]
        assert self._results is not None
        self._results.put(failures[0] if failures else dict(enumerate(outcomes)))
        paths = [Path(path) for path, _, _ in self._buckets]
        self._buckets = []
        return [] if failures else paths

    def _write_file(self, index: int) -> Any:
        """Megatron's list of what is in the file, or the exception."""
        from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync

        results: queue.Queue[Any] = queue.Queue()
        running: queue.Queue[int] = queue.Queue()
        running.put(index)
        FileSystemWriterAsync.write_preloaded_data(
            self._transforms, index, self._buckets[index], results, running, use_fsync=True
        )
        return results.get()[1]

    def finish(self) -> None:
        """Raises RuntimeError on all ranks when one could not write."""
        from torch.distributed.checkpoint import CheckpointException

        try:
            for step in self._finish:
                step()
        except CheckpointException as error:
            raise RuntimeError(_ranks_failures(error.failures)) from error


def _apart(tensor: Any, living: set[int]) -> Any:
    return tensor.clone() if tensor.untyped_storage().data_ptr() in living else tensor


def save_weights(folder: Path, sharded_state_dict: dict[str, Any]) -> None:
    """Writes a Megatron sharded state dict into `folder` (exists, empty), from all ranks together.

    Raises RuntimeError when a shard can't be written (Megatron tells all ranks then).
    """
    writing = plan_weights(folder, sharded_state_dict)
    writing.write()
    writing.finish()


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


def _ranks_failures(failures: Mapping[int, Any]) -> str:
    """`rank 1: RuntimeError: ...` for each failure that torch gathered (on one rank; empty on the others)."""
    causes = (f"rank {rank}: {type(one[0]).__name__}: {one[0]}" for rank, one in sorted(failures.items()))
    return "; ".join(causes) or "the failure is another rank's"
