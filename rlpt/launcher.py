"""Starts the ranks of this host: `python -m rlpt.launcher` takes torchrun's arguments.

It is torchrun with two differences that users feel: the exit code of the rank that failed first becomes the job's
(torchrun always says 1), and what it adds below that rank's own message is one line, not a second traceback.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

DEFAULT_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",  # ranks share this host's cores; device.threads of the configuration decides later
    # Without it a restarted group meets the stale keys of the one before it and can't connect.
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "PYTHONHASHSEED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}


def launch(module: str, arguments: Sequence[str], nproc: int) -> int:
    """Runs `python -m module arguments...` on `nproc` ranks of this host, waits, and returns the exit code.

    0 when all ranks succeeded, else that of the first rank that failed (128 + n after signal n, as a shell counts).
    SIGTERM is handed on, so that stopping this process stops its ranks.
    """
    ranks = ["--standalone", "--nproc-per-node", str(nproc)]
    command = [sys.executable, "-m", "rlpt.launcher", *ranks, "-m", module, *arguments]
    with subprocess.Popen(command, env={**DEFAULT_ENVIRONMENT, **os.environ}) as process:

        def hand_on(number: int, frame: FrameType | None) -> None:
            process.send_signal(number)

        before = signal.signal(signal.SIGTERM, hand_on)
        try:
            return shell_code(process.wait())
        except KeyboardInterrupt:  # the terminal has sent it to the whole foreground group
            process.wait()
            return 128 + signal.SIGINT
        finally:
            signal.signal(signal.SIGTERM, before)


def shell_code(returncode: int) -> int:
    """A process's return code as a shell counts it: 128 + n after signal n."""
    return returncode if returncode >= 0 else 128 - returncode


def main(arguments: Sequence[str]) -> int:
    """torchrun's arguments -> exit code."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    # What it logs about a rank that failed, the lines below say shorter and with the exit code.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    try:
        run(parse_args(list(arguments)))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        how = f"with exit code {failure.exitcode}" if failure.exitcode >= 0 else f"by signal {-failure.exitcode}"
        print(f"rank {rank} (process {failure.pid}) ended first, {how}", file=sys.stderr)
        return shell_code(failure.exitcode)
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
