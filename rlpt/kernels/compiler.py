"""C++ of this package, compiled on the machine that runs it, once: for its own processor, and kept for later runs."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

log = logging.getLogger(__name__)

FLAGS = ["-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-shared", "-fPIC"]
REMEDY = "install g++ (or set CXX to another compiler with OpenMP)"


def compiler() -> str | None:
    """The path of the C++ compiler: $CXX, g++ or clang++; None: there is none."""
    names = (os.environ.get("CXX"), "g++", "clang++")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def cache_folder() -> Path:
    """Where compiled libraries are kept: $RLPT_CACHE, or rlpt in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(os.environ.get("RLPT_CACHE") or (Path(base) if base else Path.home() / ".cache") / "rlpt")


@lru_cache
def load(source: Path) -> ctypes.CDLL | None:
    """The library of a source file. Without a compiler, or where it fails, warns once, with the remedy: None.

    A library is named by its source, the headers beside it, the flags, the compiler and the processor: a folder may be
    shared by hosts.
    """
    found = compiler()
    if found is None:
        _warn_of_no_compiler()
        return None
    try:
        return ctypes.CDLL(str(_compiled(source, found)))
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        log.warning(
            f"{source.name} does not compile with {found}; what it is for goes operator by operator\n{said[-2000:]}"
        )
        return None


def library(source: Path) -> ctypes.CDLL:
    """`load`, where `suits` has said that there is one."""
    found = load(source)
    assert found is not None, f"{source.name} is not compiled here: ask `suits` first"
    return found


def suits(tensor: Tensor, source: Path) -> bool:
    """Whether compiled kernels take tensors like this one: float32 on a CPU, and the source compiles."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32 and load(source) is not None


def has_data(tensor: Tensor) -> bool:
    """Whether there is something to compute; a plan has shapes only."""
    return not isinstance(tensor, FakeTensor)


@lru_cache
def _warn_of_no_compiler() -> None:
    log.warning(f"no C++ compiler: this CPU goes operator by operator, rollouts several times slower; {REMEDY}")


def _compiled(source: Path, found: str) -> Path:
    version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    texts = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    key = hashlib.sha256("\0".join([*texts, *FLAGS, version, _processor()]).encode()).hexdigest()[:16]
    target = cache_folder() / f"{source.stem}-{key}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f"{target.stem}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            partial = target.with_suffix(f".{os.getpid()}.tmp")
            command = [found, *FLAGS, str(source), "-o", str(partial)]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
            partial.replace(target)
    return target


def _processor() -> str:
    """What `-march=native` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        import platform

        return platform.processor() + platform.machine()
    return "\n".join(sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU part"))}))
