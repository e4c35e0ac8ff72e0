"""Confined children: run a function whose input may be hostile in a forked process that can only compute and answer.

The child gives up, before it looks at its input, every system call but those that memory, time and locks need
(`SYSTEM_CALLS`, by a seccomp filter that nothing can take off again): no file is opened, not even for reading, no
socket, no process, no program, no signal to anybody. It keeps one descriptor, the pipe of its result, and rlimits on
processor seconds, memory, files and core dumps; a wall-clock limit kills what is left. Nothing that it does to its own
memory outlives it. Works without root, namespaces or packages on Linux on x86-64 and AArch64; anywhere else, and where
the kernel refuses the filter, `refusals` says so and nothing is run.

What remains possible for code that runs inside a child: to compute, to fill its memory, to use its seconds up, and to
find the result's key in the frames above it and answer in the function's name. So a function that might evaluate its
input must have a caller that looks at that input first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

# Numbers on (x86-64, AArch64), from the kernel's tables.
SYSTEM_CALLS = {
    "brk": (12, 214),
    "clock_getres": (229, 114),
    "clock_gettime": (228, 113),
    "close": (3, 57),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "futex": (202, 98),
    "getrandom": (318, 278),
    "gettimeofday": (96, 169),
    "madvise": (28, 233),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "sigaltstack": (131, 132),
}
_MMAP, _MPROTECT, _WRITE = (9, 222), (10, 226), (1, 64)  # allowed with certain arguments only
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH
_X32_BIT = 0x40000000  # x86-64's second table of system calls: refused whole
_PROT_EXEC = 4
_PDEATHSIG, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVS = 1, 4, 22, 38  # prctl options
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_OF_NUMBER, _OF_MACHINE, _OF_ARGUMENT = 0, 4, 16  # offsets in the kernel's record of a call
_KEY_BYTES = 16
_LONGEST_RESULT = 1 << 20  # bytes
_PAGE = resource.getpagesize()
_LIBC = ctypes.CDLL(None, use_errno=True)


class Fate(StrEnum):
    """How a confined child ended."""

    RETURNED = "returned"
    RAISED = "raised"
    DIED = "died"  # by a signal, an early exit, or with a result that is none
    TIMED_OUT = "timed_out"


@dataclass(frozen=True)
class Limits:
    """What a child may use."""

    cpu_seconds: int = 2
    wall_seconds: float = 20.0
    memory: int = 256 << 20  # bytes beyond what its parent has mapped


class ConfinementError(RuntimeError):
    """The child could not be made or confined: nothing was run."""


def run_confined(function: Callable[[], bytes], limits: Limits) -> tuple[Fate, bytes]:
    """`function()` in a confined child: (how it ended, what it returned; empty unless it returned).

    The process that calls must have a single thread and have loaded whatever the function needs. Raises
    ConfinementError where the child can't be confined; the function is not called then.
    """
    key = os.urandom(_KEY_BYTES)
    result, write_end = os.pipe()
    try:
        with open("/proc/self/statm", encoding="ascii") as sizes:
            memory = int(sizes.read().split()[0]) * _PAGE + limits.memory
        parent, child = os.getpid(), os.fork()
    except OSError as error:
        os.close(result)
        os.close(write_end)
        raise ConfinementError(f"no child process can be made: {error}") from error
    if child == 0:
        _child(function, key, write_end, parent, memory, limits)
    os.close(write_end)
    return _await(child, result, key, limits.wall_seconds)


def refusals(limits: Limits = Limits()) -> list[str]:
    """The self-test: why confinement can't be relied on here; empty when a child was refused all that it tried."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return [f"confinement needs Linux on {' or '.join(_MACHINES)}, this is {sys.platform} on {platform.machine()}"]
    try:
        fate, answer = run_confined(_attempts, limits)
    except ConfinementError as error:
        return [str(error)]
    if fate is not Fate.RETURNED:
        return [f"the self-test's child {fate.value}"]
    return [f"a confined child was not refused to {what}" for what in answer.decode().split("\n") if what]


def _child(function: Callable[[], bytes], key: bytes, pipe: int, parent: int, memory: int, limits: Limits) -> None:
    """Confines itself, says so, answers, and never returns."""
    status = 1
    try:
        _confine(pipe, parent, memory, limits)
        os.write(pipe, key)
        try:
            fate, answer = b"+", function()
        except BaseException:
            fate, answer = b"-", b""
        status = 0 if os.write(pipe, key + fate + struct.pack(">I", len(answer)) + answer) else 1
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(pipe, f"!{type(error).__name__}: {error}"[:300].encode(errors="replace"))
    finally:
        os._exit(status)


def _confine(pipe: int, parent: int, memory: int, limits: Limits) -> None:
    """Gives up everything but computing and writing to `pipe`. Raises OSError where the kernel won't have it."""
    gc.disable()  # a collection would touch, and so copy, every page of the parent
    sys.stdin = sys.stdout = sys.stderr = None
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    os.closerange(0, pipe)
    os.closerange(pipe + 1, 1 << 20 if most == resource.RLIM_INFINITY else most)
    _prctl(_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise OSError(errno.ESRCH, "the parent is gone")
    for kind, value in (
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (lower, lower))
    _prctl(_DUMPABLE, 0)
    _prctl(_NO_NEW_PRIVS, 1)
    instructions = _filter(pipe)
    program = ctypes.create_string_buffer(instructions, len(instructions))
    header = struct.pack("HxxxxxxP", len(instructions) // 8, ctypes.addressof(program))
    record = ctypes.create_string_buffer(header, len(header))
    _prctl(_SECCOMP, 2, ctypes.addressof(record))


def _filter(pipe: int) -> bytes:
    """The BPF program: one verdict a system call, refusal (EPERM) for those that are not named."""
    column, machine = _MACHINES[platform.machine()]

    def argument(index: int) -> int:
        return _OF_ARGUMENT + 8 * index  # the low half; both machines are little-endian

    program = [
        (_LOAD, 0, 0, _OF_MACHINE),
        (_JUMP_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _OF_NUMBER),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _REFUSE),
    ]
    for numbers in SYSTEM_CALLS.values():
        program += [(_JUMP_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ALLOW)]
    for numbers in (_MMAP, _MPROTECT):  # no memory that can be executed
        program += [
            (_JUMP_EQUAL, 0, 4, numbers[column]),
            (_LOAD, 0, 0, argument(2)),
            (_JUMP_SET, 0, 1, _PROT_EXEC),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        ]
    program += [
        (_JUMP_EQUAL, 0, 3, _WRITE[column]),
        (_LOAD, 0, 0, argument(0)),
        (_JUMP_EQUAL, 0, 1, pipe),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)


def _prctl(option: int, first: int, second: int = 0) -> None:
    if _LIBC.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def _await(child: int, result: int, key: bytes, seconds: float) -> tuple[Fate, bytes]:
    """Reads until the child is done or `seconds` are over, and leaves no process behind."""
    deadline, received, in_time = time.monotonic() + seconds, b"", True
    longest = _LONGEST_RESULT + 2 * _KEY_BYTES + 5
    try:
        while len(received) <= longest:
            remaining = deadline - time.monotonic()
            in_time = remaining > 0 and bool(select.select([result], [], [], remaining)[0])
            data = os.read(result, 1 << 16) if in_time else b""
            if not data:
                break
            received += data
    finally:
        os.close(result)
        os.kill(child, signal.SIGKILL)  # it is ours until it is waited for
        status = os.waitpid(child, 0)[1]
    if not received.startswith(key) and in_time:
        raise ConfinementError(f"a child could not be confined: {received[:400].decode(errors='replace') or status}")
    if not in_time:
        return Fate.TIMED_OUT, b""
    tail = received[_KEY_BYTES:]
    head = tail[: _KEY_BYTES + 5]
    answer = tail[_KEY_BYTES + 5 :]
    if head == key + b"-" + bytes(4) and not answer:
        return Fate.RAISED, b""
    if head == key + b"+" + struct.pack(">I", len(answer)) and len(answer) <= _LONGEST_RESULT:
        return Fate.RETURNED, answer
    return Fate.DIED, b""


def _attempts() -> bytes:
    """Tries what a confined child must be refused; the names of what was not, one a line."""

    def fork() -> None:
        if os.fork() == 0:
            os._exit(0)

    def connect() -> None:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()

    attempts: dict[str, Callable[[], object]] = {
        "open a file for writing": lambda: os.open("/tmp/rlpt-confinement", os.O_WRONLY | os.O_CREAT, 0o600),
        "open a file for reading": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "list a folder": lambda: os.listdir("/"),
        "remove a file": lambda: os.unlink("/tmp/rlpt-confinement"),
        "make a folder": lambda: os.mkdir("/tmp/rlpt-confinement"),
        "make a socket": connect,
        "make a process": fork,
        "execute a program": lambda: os.execv("/bin/true", ["true"]),
        "send a signal": lambda: os.kill(1, 0),
        "make a pipe": os.pipe,
        "write to another descriptor": lambda: os.write(1, b"x"),
    }
    allowed = []
    for what, attempt in attempts.items():
        try:
            attempt()
        except PermissionError:
            continue
        except OSError as error:
            what += f" (it failed with {errno.errorcode.get(error.errno or 0)} instead)"
        allowed.append(what)
    return "\n".join(allowed).encode()
