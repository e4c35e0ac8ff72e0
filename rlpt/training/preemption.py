"""Being told to stop: a signal is noted, the step is finished, the run is saved, and the ranks leave with exit code 85.

SIGTERM and SIGUSR1 come from schedulers and launchers, SIGINT from Ctrl-C, SIGHUP from a terminal that is closed. They
end a run in the same way, at the end of the step in which one of them reached any rank.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path
from types import FrameType

from rlpt.errors import PREEMPTED_FILE

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
HURRY_SECONDS = 1.0  # one Ctrl-C may arrive more than once, from the terminal and from what starts the ranks
_PDEATHSIG = 1  # prctl's number for it


class StopRequest:
    """Which signal has asked this process to stop: `signal`, 0 for none. Nothing is noted before `install`.

    Later signals change nothing, so that none of them cuts a save short; but a second Ctrl-C, by a person who does not
    want to wait, is a KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._noted_at = 0.0
        self._process = 0

    def install(self) -> None:
        """Takes the signals over. To be called in the main thread, before the imports that take seconds."""
        self._process = os.getpid()
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked child: its parent decides when it ends
            return
        now = time.monotonic()
        if self.signal:
            if number == signal.SIGINT and now - self._noted_at > HURRY_SECONDS:
                raise KeyboardInterrupt
            return
        self.signal, self._noted_at = number, now
        if os.environ.get("RANK", "0") == "0":
            text = f"{signal_name(number)}: the run ends after this step, with a checkpoint\n"
            os.write(2, text.encode())  # print may be what the signal has interrupted


def ignore_signals() -> None:
    """To be called when the process is about to leave: the end of Python gives signals their deadly meaning back."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def signal_name(number: int) -> str:
    """`SIGTERM` for 15."""
    return signal.Signals(number).name


def write_marker(run_dir: Path, step: int, number: int) -> None:
    """`RUN/PREEMPTED`, in one piece: the run was told to stop by signal `number`, has saved `step`, and is to be
    continued."""
    from rlpt.evaluation.summary import write_json

    told = {"step": step, "signal": signal_name(number), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    write_json(run_dir / PREEMPTED_FILE, told)


def remove_marker(run_dir: Path) -> None:
    """To be called once the run goes on."""
    (run_dir / PREEMPTED_FILE).unlink(missing_ok=True)


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """From now on this process gets signal `number` when the thread that started it ends, however it ends."""
    ctypes.CDLL(None).prctl(_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)
