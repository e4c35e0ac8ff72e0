"""Starts the ranks of this host: `python -m rlpt.launcher` takes torchrun's arguments.

It is torchrun with three differences that users feel: the exit code of the rank that failed first becomes the job's
(torchrun always says 1), ranks are not started again after errors that would come back (`--max-restarts`), and what it
adds below the first rank's own message is one line, not a second traceback.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rlpt.errors import FATAL_EXIT_CODES, PREEMPTED_EXIT_CODE, TryAgainError
from rlpt.launch.spec import default_environment

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Job:
    """Some ranks of one module. `log`: the file that gets what they print; None: the terminal."""

    module: str
    arguments: Sequence[str]
    nproc: int
    log: Path | None = None


def launch(module: str, arguments: Sequence[str], nproc: int) -> int:
    """Runs `python -m module arguments...` on `nproc` ranks of this host, waits, and returns the exit code.

    0 when all ranks succeeded, else that of the first rank that failed (128 + n after signal n, as a shell counts).
    SIGTERM is handed on, so that stopping this process stops its ranks.
    """
    return next(code for _, code in launch_all([Job(module, arguments, nproc)], 1))


def launch_all(jobs: Sequence[Job], at_once: int) -> Iterator[tuple[Job, int]]:
    """Runs `jobs` in their order, `at_once` of them at a time; yields each with its exit code as it ends.

    Where the caller stops before the end, or this process is told to, those that run are told to as well.
    """
    waiting = list(jobs)
    running: dict[subprocess.Popen[bytes], Job] = {}

    def hand_on(number: int, frame: FrameType | None) -> None:
        for process in running:
            process.send_signal(number)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[_start(job)] = job
            try:
                ended = _first_ended(list(running))
            except KeyboardInterrupt:  # the terminal has sent it to the whole foreground group
                for process in running:
                    process.wait()
                job = next(iter(running.values()))
                running.clear()
                yield job, 128 + signal.SIGINT
                return
            job = running.pop(ended)
            yield job, shell_code(ended.returncode)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait()
        signal.signal(signal.SIGTERM, before)


def _start(job: Job) -> subprocess.Popen[bytes]:
    ranks = ["--standalone", "--nproc-per-node", str(job.nproc)]
    command = [sys.executable, "-m", "rlpt.launcher", *ranks, "-m", job.module, *job.arguments]
    environment = {**default_environment()["all"], **os.environ}
    if job.log is None:
        return subprocess.Popen(command, env=environment)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _first_ended(processes: Sequence[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    if len(processes) == 1:
        processes[0].wait()
        return processes[0]
    while True:
        for process in processes:
            if process.poll() is not None:
                return process
        time.sleep(POLL_SECONDS)


def shell_code(returncode: int) -> int:
    """A process's return code as a shell counts it: 128 + n after signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def main(arguments: Sequence[str]) -> int:
    """torchrun's arguments -> exit code."""
    from torch.distributed import DistNetworkError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.run import parse_args, run

    for name, value in default_environment()["all"].items():
        os.environ.setdefault(name, value)
    # What it logs about a rank that failed, the lines below say shorter and with the exit code.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    _stay_down_after((*FATAL_EXIT_CODES, PREEMPTED_EXIT_CODE))
    try:
        run(parse_args(list(arguments)))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = f"with exit code {failure.exitcode}" if failure.exitcode >= 0 else f"by signal {-failure.exitcode}"
        print(f"rank {rank} (process {failure.pid}) ended first, {how}", file=sys.stderr)
        return shell_code(failure.exitcode)
    except SignalException as error:
        return 128 + int(error.sigval)
    except (DistNetworkError, RendezvousError) as error:
        cause = str(error.__cause__ or error).strip().splitlines()[0]
        where = "is the port of the rendezvous free, does its host answer"
        print(f"error: the ranks' launchers do not meet: {cause}; {where}? rlpt doctor tells", file=sys.stderr)
        return TryAgainError.exit_code
    return 0


def _stay_down_after(exit_codes: Sequence[int]) -> None:
    """Ranks that end with one of `exit_codes` use up what restarts are left; torchrun would start them again."""
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

    monitor = LocalElasticAgent._monitor_workers

    def watch(agent: LocalElasticAgent, group: Any) -> Any:
        result = monitor(agent, group)
        if any(failure.exitcode in exit_codes for failure in result.failures.values()):
            agent._remaining_restarts = 0
        return result

    LocalElasticAgent._monitor_workers = watch  # type: ignore[method-assign]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
