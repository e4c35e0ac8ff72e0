"""Starts the ranks of this host: `python -m rlpt.launcher` takes torchrun's arguments.

It is torchrun with differences that users feel. The exit code of the rank that failed first becomes the job's (torchrun
always says 1), ranks are not started again after errors that would come back (`--max-restarts`), and what it adds below
the first rank's own message is one line, not a second traceback. Signals are handed on to the ranks (USR1 too), which
then have SAVE_SECONDS (`--shutdown-timeout`) to save; where all of them did, the job's exit code is theirs, 85. More
signals change nothing, but a second Ctrl-C ends the ranks at once.
"""

from __future__ import annotations

import contextlib
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
from rlpt.training.preemption import HURRY_SECONDS, die_with_parent, ignore_signals

POLL_SECONDS = 0.2
SAVE_SECONDS = 600  # what the present step and a checkpoint may take after a signal
FAILED_SECONDS = 5  # what the others get after a rank has failed; they may be in a collective, deaf to signals
HANDED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)  # a terminal sends Ctrl-C to all by itself


@dataclass(frozen=True)
class Job:
    """Some ranks of one module. `log`: the file that gets what they print; None: the terminal."""

    module: str
    arguments: Sequence[str]
    nproc: int
    log: Path | None = None


def launch(module: str, arguments: Sequence[str], nproc: int) -> int:
    """Runs `python -m module arguments...` on `nproc` ranks of this host, waits, and returns the exit code.

    0 when all ranks succeeded, 85 when they were told to stop and saved, else that of the first rank that failed (128 +
    n after signal n, as a shell counts). SIGTERM, SIGUSR1 and SIGHUP are handed on; where this process is killed, its
    ranks are told to stop.
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

    before = {number: signal.getsignal(number) for number in HANDED_ON}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup
            signal.signal(number, hand_on)
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop(0)
                running[_start(job)] = job
            try:
                ended = _first_ended(list(running))
            except KeyboardInterrupt:  # the terminal has sent it to the whole foreground group
                codes = {job: shell_code(_ended(process)) for process, job in running.items()}
                running.clear()
                yield next(iter(codes.items()))
                return
            job = running.pop(ended)
            yield job, shell_code(ended.returncode)
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            _ended(process)
        for number, handler in before.items():
            signal.signal(number, handler)


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Waits for a process whatever is pressed; it hears of each Ctrl-C itself."""
    while True:
        with contextlib.suppress(KeyboardInterrupt):
            return process.wait()


def _start(job: Job) -> subprocess.Popen[bytes]:
    ranks = ["--standalone", "--nproc-per-node", str(job.nproc)]
    command = [sys.executable, "-m", "rlpt.launcher", *ranks, "-m", job.module, *job.arguments]
    environment = {**default_environment()["all"], **os.environ}
    if job.log is None:
        return subprocess.Popen(command, env=environment, preexec_fn=die_with_parent)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with open(job.log, "ab") as log:
        return subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, preexec_fn=die_with_parent
        )


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
    logging.getLogger("torch.distributed.elastic.agent.server.api").setLevel(logging.ERROR)  # what signal came
    _stay_down_after((*FATAL_EXIT_CODES, PREEMPTED_EXIT_CODE))
    ranks_codes = _give_time_to_save()
    handled = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1"]
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup
        handled.remove("SIGHUP")
    defaults = [f"--signals-to-handle={','.join(handled)}", f"--shutdown-timeout={SAVE_SECONDS}"]
    try:
        run(parse_args([*defaults, *arguments]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = f"with exit code {failure.exitcode}" if failure.exitcode >= 0 else f"by signal {-failure.exitcode}"
        print(f"rank {rank} (process {failure.pid}) ended first, {how}", file=sys.stderr)
        return shell_code(failure.exitcode)
    except SignalException as error:
        alike = set(ranks_codes)
        return alike.pop() if alike in ({0}, {PREEMPTED_EXIT_CODE}) else 128 + int(error.sigval)
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
            ignore_signals()  # all have ended; where other nodes are told to end now, the code stays what it is
        return result

    LocalElasticAgent._monitor_workers = watch  # type: ignore[method-assign]


def _give_time_to_save() -> list[int]:
    """How ranks are ended: torchrun cuts the time short at the next signal, and gives ranks whose peer has failed as
    long as those that save. Returns the list that will hold the ranks' exit codes once they ended after a signal."""
    from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
    from torch.distributed.elastic.multiprocessing.api import PContext

    codes: list[int] = []
    shutdown, close = LocalElasticAgent._shutdown, PContext.close

    def end_all(agent: LocalElasticAgent, death_sig: signal.Signals | None = None, timeout: int = 30) -> None:
        if death_sig is None:  # not a signal's doing
            return shutdown(agent, timeout=FAILED_SECONDS)
        context: Any = agent._pcontext
        ranks = list(context.subprocess_handlers.values()) if context is not None else []
        told = time.monotonic()

        def hurry(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGINT and time.monotonic() - told > HURRY_SECONDS:
                for rank in ranks:
                    if rank.proc.poll() is None:
                        rank.close(signal.SIGKILL)

        for number in (*HANDED_ON, signal.SIGINT):
            signal.signal(number, hurry)
        shutdown(agent, death_sig, timeout)
        codes.extend(rank.proc.returncode for rank in ranks)

    def end_peers(context: PContext, death_sig: signal.Signals | None = None, timeout: int = 30) -> None:
        """Where a rank has ended by itself, torch calls it without a signal. Those that leave saved need no help."""
        ended = [rank.proc.returncode for rank in getattr(context, "subprocess_handlers", {}).values()]
        if death_sig is None and PREEMPTED_EXIT_CODE not in ended:
            timeout = FAILED_SECONDS
        close(context, death_sig, timeout)

    LocalElasticAgent._shutdown = end_all  # type: ignore[assignment,method-assign]
    PContext.close = end_peers  # type: ignore[assignment,method-assign]
    return codes


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    ignore_signals()
    sys.exit(exit_code)
