"""What each rank says of itself while it runs, in small files that its peers read once something is wrong.

`<run>/heartbeats/rank-N.json` is replaced every few seconds by a thread. Files need no peer to be alive, and they show
a rank that is stopped by their age. Ages are differences of modification times, so clocks of hosts don't matter.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

PROBE_SECONDS = 2.0  # for a host to answer
MAX_NAMED = 8  # ranks of one report
SILENT_INTERVALS = 3  # without a sign, after which a rank is silent


@dataclass(frozen=True)
class Heartbeat:
    """A rank, and what its main thread does."""

    rank: int
    host: str
    address: str  # of the network on which the ranks met; "" where there is one rank
    pid: int
    step: int
    phase: str
    marks: int  # phases begun so far; the ranks go through the same ones
    seconds: float  # in this phase
    where: str  # innermost line of ours, FILE:LINE FUNCTION
    waiting: bool  # for other ranks
    silent: float = 0.0  # seconds since it was written; filled in by the reader


def write_heartbeat(folder: Path, beat: Heartbeat) -> None:
    """Replaces this rank's file. A disk that can't be written is no reason to end a run: its age will show."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        path = _path(folder, beat.rank)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(beat)), encoding="utf-8")
        os.replace(temporary, path)


def read_heartbeats(folder: Path, ranks: Iterable[int], own: int) -> dict[int, Heartbeat]:
    """The last signs of `ranks`, aged against that of rank `own`, which was written just now."""
    found: dict[int, tuple[Heartbeat, float]] = {}
    for rank in ranks:
        with contextlib.suppress(OSError, ValueError, TypeError):
            path = _path(folder, rank)
            beat = Heartbeat(**json.loads(path.read_text(encoding="utf-8")))
            found[rank] = (beat, path.stat().st_mtime)
    now = found[own][1] if own in found else max((at for _, at in found.values()), default=0.0)
    return {rank: replace(beat, silent=max(0.0, now - at)) for rank, (beat, at) in found.items()}


def suspects(beats: Mapping[int, Heartbeat], world_size: int, own: int, interval: float) -> list[str]:
    """A line for each rank that the others wait for, as far as can be told; the surest kind of sign alone.

    In this order: hosts that don't answer, processes that ended or are stopped (of this host), ranks without a sign,
    ranks that are behind or don't wait while others do.
    """
    others = {rank: beat for rank, beat in beats.items() if rank != own}
    lost = _lost_hosts(beats, own)
    if lost:
        return [f"host {name} does not answer: ranks {', '.join(map(str, ranks))}" for name, ranks in lost.items()]
    host = beats[own].host if own in beats else ""
    states = {rank: _process_state(beat.pid) if beat.host == host else "" for rank, beat in others.items()}
    dead = [rank for rank, state in states.items() if state]
    late = [rank for rank, beat in others.items() if beat.silent > SILENT_INTERVALS * interval]
    named = sorted({*dead, *late})
    absent = [rank for rank in range(world_size) if rank not in beats]
    if named or absent:
        lines = [describe(others[rank], states[rank]) for rank in named]
        return _cut(lines + [f"rank {rank}: has left no sign in this run's folder" for rank in absent])
    if any(beat.waiting for beat in beats.values()):
        behind = [beat for beat in beats.values() if not beat.waiting]
    else:
        most = max((beat.marks for beat in beats.values()), default=0)
        behind = [beat for beat in beats.values() if beat.marks < most]
    return _cut([describe(beat) for beat in sorted(behind, key=lambda beat: beat.rank)])


def describe(beat: Heartbeat, state: str = "") -> str:
    """`rank 1 on host-2: step 12, rollout for 9 s at rlpt/rollout/source.py:120 take, no sign for 8 s, stopped`."""
    parts = [f"step {beat.step}", f"{beat.phase} for {beat.seconds + beat.silent:.0f} s"]
    parts[-1] += f" at {beat.where}" if beat.where else ""
    if beat.silent >= 1:
        parts.append(f"no sign for {beat.silent:.0f} s")
    return f"rank {beat.rank} on {beat.host}: {', '.join(parts + [state] * bool(state))}"


def own_address() -> str:
    """The address by which this host reaches the one on which the ranks meet; "" without a launcher."""
    master = os.environ.get("MASTER_ADDR")
    if not master:
        return ""
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((master, int(os.environ.get("MASTER_PORT", "1"))))  # sends nothing
        return str(probe.getsockname()[0])
    return ""


def _lost_hosts(beats: Mapping[int, Heartbeat], own: int) -> dict[str, list[int]]:
    """`NAME (ADDRESS)` -> ranks, of the other hosts that neither take nor refuse a connection."""
    here = beats[own].address if own in beats else ""
    hosts: dict[tuple[str, str], list[int]] = {}
    for beat in beats.values():
        if here and beat.address not in ("", here):
            hosts.setdefault((beat.host, beat.address), []).append(beat.rank)
    chosen = list(hosts.items())[:MAX_NAMED]
    return {f"{name} ({address})": ranks for (name, address), ranks in chosen if not _answers(address)}


def _answers(address: str) -> bool:
    """Whether a host is there: a refused connection is an answer, too."""
    try:
        with socket.create_connection((address, 1), PROBE_SECONDS):
            return True
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def _process_state(pid: int) -> str:
    """What is wrong with a process of this host, "": nothing, or the system doesn't tell."""
    if not Path("/proc/self/stat").exists():
        return ""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "its process is gone"
    return {"Z": "its process has ended", "X": "its process has ended", "T": "its process is stopped"}.get(letter, "")


def _cut(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MAX_NAMED
    return [*lines[:MAX_NAMED], *([f"and {more} more ranks"] if more > 0 else [])]


def _path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"
