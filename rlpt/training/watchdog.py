"""Watches a rank's main thread from another one: a rank that hangs, dies or falls behind is named, never waited for.

The loop marks its phases (`enter`: two assignments). Every few seconds the watchdog writes where its rank stands
(`heartbeats`). What happens when:

- a collective fails, because a peer is gone or does not come in time: this rank writes the stacks of its threads to
  `<run>/stacks-rank-N.txt`, and its error names the ranks that are missing;
- a phase lasts about as long as a collective may take: stacks and a warning with the same names, once a phase (where
  the communication library itself ends a process, this comes before it);
- a phase lasts longer than `device.phase_seconds`: stacks, the names, and the process ends.

Exit code 75 says that the ranks may be started again: they go on from the newest checkpoint.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from rlpt.distributed.device import peers_lost
from rlpt.errors import TryAgainError
from rlpt.training.heartbeats import Heartbeat, own_address, read_heartbeats, suspects, write_heartbeat

MOST_SECONDS, BEATS = 30.0, 20  # between two signs: timeout / BEATS, at most MOST_SECONDS
_WAITS = ("/torch/distributed/", "/pipeline_parallel/p2p_communication.py")
_OURS = f"{os.sep}rlpt{os.sep}"


class Watchdog:
    """Of one rank; it watches inside `guard`.

    `timeout`: seconds after which a collective fails; `limit`: most seconds of a phase, 0: no limit; `end(code)` ends
    the process.
    """

    def __init__(
        self,
        run_dir: Path,
        rank: int,
        world_size: int,
        timeout: float,
        limit: float = 0.0,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self.rank, self.world_size, self.timeout, self.limit = rank, world_size, timeout, limit
        self.interval = min(MOST_SECONDS, timeout / BEATS)
        self.stacks = run_dir / f"stacks-rank-{rank}.txt"
        self._folder, self._end = run_dir / "heartbeats", end
        self._host, self._address = socket.gethostname(), own_address()
        self._main = threading.main_thread().ident
        self._phase, self._step, self._marks, self._since = "start", 0, 0, time.monotonic()
        self._told = -1  # the mark of the phase that was warned of
        self._ended = threading.Event()

    def enter(self, phase: str, step: int) -> None:
        """The main thread begins `phase` of `step`."""
        self._phase, self._step, self._since = phase, step, time.monotonic()
        self._marks += 1

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Inside, phases are watched, and a failed collective becomes a TryAgainError that names who is missing."""
        self._since = time.monotonic()
        thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        except Exception as error:
            if not peers_lost(error):
                raise
            raise TryAgainError(self.report(str(error).strip().splitlines()[-1])) from error
        finally:
            self._ended.set()
            thread.join()
            faulthandler.cancel_dump_traceback_later()

    def report(self, cause: str) -> str:
        """Writes this rank's stacks; one line of where it is, `cause`, and the ranks that the others wait for."""
        self._post()
        self._dump()
        beats = read_heartbeats(self._folder, range(self.world_size), self.rank)
        found = suspects(beats, self.world_size, self.rank, self.interval)
        missing = "missing: " + "; ".join(found) if found else "no rank is missing: see which collective each waits in"
        return (
            f"step {self._step}, {self._phase} for {time.monotonic() - self._since:.0f} s: {cause}; {missing}. "
            f"Stacks: {self.stacks.with_name('stacks-rank-*.txt')}. Start again: it goes on from the newest checkpoint"
        )

    def _watch(self) -> None:
        last = time.monotonic()
        self._post()
        while not self._ended.wait(self.interval):
            now = time.monotonic()
            if now - last > self.interval + 1:  # this process was stopped, or starved: that time is no one's fault
                self._since += now - last - self.interval
            last = now
            self._post()
            # A call that keeps the interpreter's lock stops this thread, too; then one of C writes the stacks.
            faulthandler.dump_traceback_later(self.timeout, file=sys.__stderr__ or 2)
            mark, seconds = self._marks, now - self._since
            if self.limit and seconds > self.limit and mark == self._marks:
                line = self.report(f"device.phase_seconds={self.limit:g} is over")
                print(f"error on rank {self.rank}: {line}", file=sys.stderr, flush=True)
                self._end(TryAgainError.exit_code)
                return
            if seconds > self.timeout - 2 * self.interval and mark == self._marks != self._told:
                self._told = mark
                line = self.report(f"nearly device.timeout_seconds={self.timeout:g}")
                if self.rank == 0 or "missing: rank 0 " in line:
                    print(f"warning of rank {self.rank}: {line}", file=sys.stderr, flush=True)

    def _post(self) -> None:
        where, waiting = _position(sys._current_frames().get(self._main or 0))
        beat = Heartbeat(
            rank=self.rank,
            host=self._host,
            address=self._address,
            pid=os.getpid(),
            step=self._step,
            phase=self._phase,
            marks=self._marks,
            seconds=round(time.monotonic() - self._since, 2),
            where=where,
            waiting=waiting,
        )
        write_heartbeat(self._folder, beat)

    def _dump(self) -> None:
        with contextlib.suppress(OSError), open(self.stacks, "w", encoding="utf-8") as file:
            faulthandler.dump_traceback(file)


def _position(frame: FrameType | None) -> tuple[str, bool]:
    """(innermost line of ours, whether it waits in a collective) of a thread."""
    waiting = False
    while frame is not None:
        name = frame.f_code.co_filename
        if _OURS in name:
            return f"{name[name.rindex(_OURS) + 1 :]}:{frame.f_lineno} {frame.f_code.co_name}", waiting
        waiting = waiting or any(part in name for part in _WAITS)
        frame = frame.f_back
    return "", waiting
