"""Checks of one host, without its other ranks: software, cores, shared memory, disk, port, tracking, sandbox."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import netrc
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rlpt.config import Config
from rlpt.doctor.findings import Finding, Status
from rlpt.kernels.compiler import REMEDY
from rlpt.kernels.compiler import compiler as find_compiler
from rlpt.plan import missing_data

PACKAGES = ("torch", "megatron-core", "transformers", "wandb", "triton")
WANDB_MODES = ("online", "offline", "disabled", "shared")
WANDB_HOST = "api.wandb.ai"
GIB = 1 << 30
LEAST_SHARED, GOOD_SHARED = 64 << 20, GIB  # bytes of /dev/shm: below the first nothing works, the second is a rank's
WRITTEN = 64 << 20  # bytes of the speed test
SLOW_DISK = 100e6  # bytes/s
DEFAULT_PORT = 29500


def versions() -> Finding:
    """Of Python and the packages that decide how a run behaves."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} -")
    return Finding("versions", Status.OK, f"Python {platform.python_version()}, {', '.join(found)}")


def triton(has_gpu: bool) -> Finding:
    """Kernels in Triton are for GPUs."""
    if importlib.util.find_spec("triton") is not None:
        return Finding("Triton", Status.OK, f"version {importlib.metadata.version('triton')}")
    if has_gpu:
        return Finding("Triton", Status.WARN, "not installed", "pip install triton, of the version that torch asks for")
    return Finding("Triton", Status.OK, "not installed, and not needed without GPUs")


def compiler(has_gpu: bool) -> Finding:
    """A C++ compiler makes the code that layers run by on a CPU."""
    found = find_compiler()
    if found is not None:
        return Finding("C++ compiler", Status.OK, found)
    if has_gpu:
        return Finding("C++ compiler", Status.OK, "none, and not needed with GPUs")
    return Finding("C++ compiler", Status.WARN, "none: on the CPU rollouts are several times slower", REMEDY)


def threads(environment: Mapping[str, str], local_ranks: int) -> Finding:
    """Threads of all ranks beside the cores of this host."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = environment.get("OMP_NUM_THREADS", "")
    said = f"{cores} cores, {local_ranks} ranks here, OMP_NUM_THREADS={asked or 'not set'}"
    if asked and not asked.isdigit():
        return Finding("threads", Status.FAIL, said, "set OMP_NUM_THREADS to a number")
    if not asked and local_ranks > 1:
        return Finding("threads", Status.WARN, said, "set OMP_NUM_THREADS=1: each rank would take every core")
    if local_ranks * int(asked or 1) > cores:
        return Finding("threads", Status.WARN, said, f"at most {max(1, cores // local_ranks)} a rank, or fewer ranks")
    return Finding("threads", Status.OK, said)


def shared_memory(local_ranks: int, folder: Path = Path("/dev/shm")) -> Finding:
    """What ranks of one host exchange through."""
    if not folder.is_dir():
        return Finding("shared memory", Status.WARN, f"{folder} is not there", "mount a tmpfs there")
    total, _, free = shutil.disk_usage(folder)
    said = f"{folder}: {free / GIB:.2f} of {total / GIB:.2f} GiB free"
    if free < LEAST_SHARED:
        return Finding("shared memory", Status.FAIL, said, f"free some of it; at least {LEAST_SHARED >> 20} MiB")
    if free < GOOD_SHARED * local_ranks:
        remedy = "in a container: --shm-size, or an emptyDir of medium Memory; a GiB a rank is plenty"
        return Finding("shared memory", Status.WARN, said, remedy)
    return Finding("shared memory", Status.OK, said)


def run_folder(folder: Path, needed: float) -> list[Finding]:
    """Whether the run's folder can be written, how fast, and whether its checkpoints (`needed` bytes) fit.

    Where it is not there yet, the nearest folder above it is tried. Nothing is left behind.
    """
    here = folder.absolute()
    while not here.exists() and here != here.parent:
        here = here.parent
    if not here.is_dir():
        return [Finding("run folder", Status.FAIL, f"{here} is a file", "set run_dir to a folder")]
    try:
        speed = _write_speed(here)
    except OSError as error:
        remedy = "make it writable, free space there, or set run_dir to another folder"
        return [Finding("run folder", Status.FAIL, f"{here}: can't be written: {error.strerror}", remedy)]
    free = shutil.disk_usage(here).free
    slow = speed < SLOW_DISK
    found = [
        Finding(
            "run folder",
            Status.WARN if slow else Status.OK,
            f"{here}: writes {_rounded(speed / 1e6)} MB/s with fsync",
            "checkpoints will be slow; a local disk is faster" if slow else "",
        )
    ]
    said = f"about {_rounded(free / 1e9)} GB free, checkpoints take about {needed / 1e9:.2g} GB"
    remedy = "free space, lower checkpoint.keep_last, or set run_dir to another disk"
    found.append(Finding("disk", Status.OK, said) if free > needed else Finding("disk", Status.FAIL, said, remedy))
    return found


def _rounded(value: float) -> str:
    """Two digits: hosts that are alike should read alike."""
    return f"{float(f'{value:.2g}'):,.0f}" if value >= 1 else f"{value:.2g}"


def _write_speed(folder: Path) -> float:
    block = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".rlpt-doctor-") as file:
        begun = time.monotonic()
        for _ in range(WRITTEN // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return WRITTEN / max(time.monotonic() - begun, 1e-9)


def port(environment: Mapping[str, str]) -> Finding:
    """Where the ranks meet. Under a launcher it is in use, by the launcher."""
    wanted = environment.get("MASTER_PORT", str(DEFAULT_PORT))
    if not wanted.isdigit() or not 0 < int(wanted) < 65536:
        return Finding("port", Status.FAIL, f"MASTER_PORT={wanted} is no port", f"MASTER_PORT={DEFAULT_PORT}")
    if "RANK" in environment:
        return Finding("port", Status.OK, f"{wanted}, where these ranks met")
    with socket.socket() as probe:
        try:
            probe.bind(("", int(wanted)))
        except OSError as error:
            said = f"{wanted} is taken: {error.strerror}"
            return Finding("port", Status.FAIL, said, "end what listens there, or set MASTER_PORT to a free one")
    return Finding("port", Status.OK, f"{wanted} is free")


def tracking(config: Config | None, environment: Mapping[str, str]) -> Finding:
    """Weights & Biases: the mode that would be in force, and whether it can be. Its service is not asked."""
    asked, forced = config.tracking.wandb if config else "auto", environment.get("WANDB_MODE", "")
    if forced and forced not in WANDB_MODES:
        remedy = f"unset it, or one of {', '.join(WANDB_MODES)}"
        return Finding("wandb", Status.FAIL, f"WANDB_MODE={forced} is no mode", remedy)
    has_login = bool(environment.get("WANDB_API_KEY")) or _logged_in(Path(environment.get("NETRC", "~/.netrc")))
    mode = asked if asked != "auto" else "online" if environment.get("WANDB_API_KEY") else "offline"
    said = f"tracking.wandb={asked}: {mode}, {'a login is there' if has_login else 'no login'}"
    if mode == "online" and not has_login:
        return Finding("wandb", Status.FAIL, said, "set WANDB_API_KEY, run wandb login, or set tracking.wandb=offline")
    if forced and forced != mode and asked != "disabled":
        return Finding("wandb", Status.WARN, f"{said}, but WANDB_MODE={forced}", "let the two say the same")
    return Finding("wandb", Status.OK, said)


def _logged_in(path: Path) -> bool:
    try:
        return netrc.netrc(path.expanduser()).authenticators(WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def data(config: Config) -> Finding:
    """What the recipe reads."""
    missing = missing_data(config)
    if missing:
        remedy = "python -m data_prep all DATA_CONFIG, or copy its folder here"
        return Finding("data", Status.FAIL, f"{len(missing)} files are missing, the first {missing[0]}", remedy)
    return Finding("data", Status.OK, "tokenizer and shards are there")


def sandbox() -> Finding:
    """The self-test of confined children, in a process of its own, which has one thread."""
    code = "import rlpt.tasks.confinement as c; print('; '.join(c.refusals()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout.strip() or done.stderr.strip()[-200:]
    if said or done.returncode:
        remedy = "reasoning-gym's tasks will not run here; allow seccomp filters in this container"
        return Finding("sandbox", Status.WARN, said, remedy)
    return Finding("sandbox", Status.OK, "a confined child was refused all that it tried")
