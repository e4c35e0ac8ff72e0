"""The process that Megatron's writer of checkpoints starts beside each rank, tied to that rank's life."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from multiprocessing.managers import SyncManager

_PDEATHSIG = 1  # prctl's number for it


def tie_writer_to_rank() -> None:
    """Gives Megatron (0.16.1) its queue of results from a process that ends when this one does, however that ends; its
    own would outlive a rank that is killed. To be called before a save; idempotent."""
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    if filesystem_async._results_queue is None:
        manager = SyncManager(ctx=multiprocessing.get_context("spawn"))
        manager.start(_end_with, (os.getpid(),))
        filesystem_async._results_queue = manager.Queue()  # keeps its manager


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it ended before that was in force
        os._exit(1)
