"""The training process's side of the worker: started when first asked, restarted after a death, not shared by forks."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rlpt.errors import ConfigError
from rlpt.tasks.reasoning_gym.messages import read_message, write_message

PACKAGE = "reasoning_gym"
_WORKER = "rlpt.tasks.reasoning_gym.worker"
_STARTS = 2  # tries of one request
_CLOSING_SECONDS = 5.0


class WorkerError(RuntimeError):
    """The worker failed: never an answer's fault, so never a score of 0."""


def environment() -> dict[str, str]:
    """All that the worker gets of ours: where modules are. The fixed hash seed makes items the same everywhere."""
    clean = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path),
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",  # a forked child has one thread
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
    }
    return clean | {key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}


class Client:
    """One worker a process. `fates` counts how the children ended that scored answers."""

    def __init__(self) -> None:
        self.fates: Counter[str] = Counter()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The worker's process id, where one runs."""
        return self._process.pid if self._process is not None else None

    def item(self, name: str, level: int, seed: int) -> dict[str, str]:
        """{"question", "answer"} of an item, or {"refused": why}. Raises WorkerError, ConfigError."""
        return self._ask({"ask": "item", "name": name, "level": level, "seed": seed})

    def score(self, name: str, level: int, seed: int, answer: str) -> float:
        """What the package's verifier says of an answer, and 0 where it raised, died or took too long."""
        reply = self._ask({"ask": "score", "name": name, "level": level, "seed": seed, "answer": answer})
        self.fates[reply["fate"]] += 1
        return float(reply["score"])

    def close(self) -> None:
        """Ends the worker, if one runs."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_CLOSING_SECONDS)
            return
        process.kill()
        process.wait()

    def forget(self) -> None:
        """Lets go of a worker that belongs to the parent: in a forked child, whose requests get one of its own."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process is not None:
            process.returncode = 0  # not ours to wait for
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def _ask(self, request: dict[str, Any]) -> Any:
        with self._lock:
            for _ in range(_STARTS):
                try:
                    if self._process is None:
                        self._process = start()
                    assert self._process.stdin is not None
                    assert self._process.stdout is not None
                    write_message(self._process.stdin.fileno(), request)
                    reply = read_message(self._process.stdout.fileno())
                    break
                except (OSError, EOFError):
                    self.close()
                except BaseException:  # interrupted: the reply to this request must not answer the next
                    self.close()
                    raise
            else:
                shown = {key: value for key, value in request.items() if key != "answer"}
                raise WorkerError(f"reasoning_gym worker: died {_STARTS} times of {shown}")
        if "error" in reply:
            raise WorkerError(f"reasoning_gym worker: {reply['error']}")
        return reply


def start(arguments: Sequence[str] = ("-P", "-m", _WORKER)) -> subprocess.Popen[bytes]:
    """A worker that is ready, run by the interpreter's `arguments`. Raises ConfigError where the package is missing or
    children can't be confined, WorkerError where it ends at once."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise ConfigError("tasks reasoning_gym.*: the package is not installed; pip install 'rlpt[gym]'")
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd="/",
        env=environment(),
        start_new_session=True,  # a Ctrl-C is ours to handle
    )
    assert process.stdout is not None
    try:
        greeting = read_message(process.stdout.fileno())
    except EOFError:
        process.wait()
        raise WorkerError(f"reasoning_gym worker: did not start, exit code {process.returncode}") from None
    if "refusals" in greeting:
        process.wait()
        raise ConfigError(
            "tasks reasoning_gym.*: answers can't be scored safely here, and are not scored otherwise: "
            + "; ".join(greeting["refusals"])
        )
    return process


CLIENT = Client()
atexit.register(CLIENT.close)
os.register_at_fork(after_in_child=CLIENT.forget)
