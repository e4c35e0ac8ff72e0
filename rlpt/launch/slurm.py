"""Slurm: a batch script that sends itself again until training is done."""

from __future__ import annotations

import os
import posixpath
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

from rlpt.errors import PREEMPTED_FILE, ConfigError
from rlpt.launch.rendering import quote, script
from rlpt.launch.spec import LaunchSpec
from rlpt.launch.torchrun import WRITTEN, node_script
from rlpt.registry import register


@register("launch target", "slurm")
@dataclass(frozen=True)
class Slurm:
    """`cpus` and `memory` are a node's (default: whole nodes); `mounts`: of the container, HOST:CONTAINER,..."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    cpus: int = 0
    memory: str = ""
    mounts: str = ""
    rendezvous: Literal["static", "c10d"] = "static"
    python: str = ""  # of the environment that has rlpt; "": the one that runs here, in a container `python`
    workdir: str = ""  # of the checkout, as all nodes see it; "": where the command is given

    def render(self, spec: LaunchSpec, folder: str) -> dict[str, str]:
        """`job.sbatch`, the `node.sh` that it starts on each node, and the recipe."""
        workdir = self.workdir or os.getcwd()
        python = self.python or ("python" if spec.image else sys.executable)
        if any(mark in folder for mark in " %'\"\n"):
            raise ConfigError(f"--out {folder}: Slurm's log files need a folder without blanks, quotes and %")
        srun = ["srun", "--kill-on-bad-exit=1", "--cpu-bind=none"]
        if self.cpus:
            srun.append(f"--cpus-per-task={self.cpus}")
        if spec.image:
            srun += [f"--container-image={spec.image}", f"--container-mounts={self.mounts or f'{workdir}:{workdir}'}"]
        srun.append("--output=<$logs>/node-%n.log")
        batch = script(
            "job.sbatch",
            spec=spec,
            target=self,
            folder=folder,
            written=WRITTEN,
            run_dir=posixpath.join(workdir, spec.run_dir),
            marker=PREEMPTED_FILE,
            fatal_codes=" ".join(map(str, spec.fatal_codes)),
            time_limit=_time(spec.time_limit),
            srun=srun,
        )
        node = node_script(spec, folder, self.rendezvous, python, workdir, restarts=0, limited=False)
        return {"job.sbatch": batch, "node.sh": node, "config.yaml": spec.recipe}

    def next_steps(self, spec: LaunchSpec, folder: str) -> list[str]:
        """How to submit it."""
        return [f"sbatch {quote(f'{folder}/job.sbatch')}"]

    def start(self, spec: LaunchSpec, folder: str) -> int:
        """Submits it. Raises ConfigError where there is no sbatch."""
        if shutil.which("sbatch") is None:
            raise ConfigError("sbatch: not found; submit from a login node of the cluster, or look with --dry-run")
        return subprocess.run(["sbatch", f"{folder}/job.sbatch"]).returncode


def _time(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock
