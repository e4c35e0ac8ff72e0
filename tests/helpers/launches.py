"""Processes for tests that need ranks: a new session each, output to a file, everything gone afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
LIMIT = 420  # seconds: a hang fails instead of stopping the suite
MARK = "RLPT_TEST_LAUNCH"  # every process of a launch carries this in its environment


@dataclass(frozen=True)
class Launch:
    """`python ARGUMENTS` in a session of its own. A pipe would stay open in helpers that outlive a killed rank."""

    process: subprocess.Popen[bytes]
    log: Path
    mark: str = field(repr=False)

    @property
    def output(self) -> str:
        """What all its processes have printed."""
        return self.log.read_text(errors="replace")

    def finish(self) -> int:
        """Waits for the exit code; after `LIMIT` seconds kills everything and raises TimeoutExpired."""
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL to every process of the launch, in no particular order: what a lost machine looks like."""
        while alive := self.alive():  # a launcher may have been starting one more
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.poll()
            psutil.wait_procs(alive, timeout=30)
        self.process.wait(30)

    def left_behind(self) -> list[psutil.Process]:
        """Processes that are still there some time after the end."""
        return psutil.wait_procs(self.alive(), timeout=20)[1]

    def alive(self) -> list[psutil.Process]:
        """Processes that carry the launch's mark, zombies left out."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found


def start(arguments: Sequence[str | Path], log: Path, shadow: Path | None = None) -> Launch:
    """Starts `python ARGUMENTS` from the repository's root; output goes to `log`. Packages in `shadow` come first."""
    path = [str(ROOT)] if shadow is None else [str(shadow), str(ROOT)]
    return start_command([sys.executable, *map(str, arguments)], log, {"PYTHONPATH": os.pathsep.join(path)})


def start_command(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Launch:
    """Starts any command so; `environment` is added to what there is."""
    mark = uuid.uuid4().hex
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), MARK: mark, **(environment or {})}
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "RLPT_"))}
    with open(log, "wb") as file:
        process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env=clean | own,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Launch(process, log, mark)


def run(arguments: Sequence[str | Path], log: Path) -> tuple[int, str]:
    """(exit code, output) of `python ARGUMENTS`."""
    launch = start(arguments, log)
    return launch.finish(), launch.output


def ranks(count: int) -> list[str]:
    """Arguments that start what follows on `count` ranks of this host."""
    return ["-m", "rlpt.launcher", "--standalone", "--nproc-per-node", str(count)]


@cache
def layout_results(world_size: int) -> dict[str, Any]:
    """What tests/distributed/layouts.py saw on `world_size` ranks; launched once a test session."""
    worker = ROOT / "tests" / "distributed" / "layouts.py"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seen.json"
        launcher = ranks(world_size) if world_size > 1 else []
        code, output = run([*launcher, worker, out], Path(folder) / "log")
        assert code == 0, output
        seen: dict[str, Any] = json.loads(out.read_text())
        return seen
