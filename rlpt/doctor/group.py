"""Checks of all ranks together: a real all-reduce on every axis of the mesh, its bandwidth, and the ranks' clocks."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch

from rlpt.distributed.device import Device
from rlpt.distributed.mesh import Axis, Mesh
from rlpt.doctor.findings import Finding, Status

ELEMENTS = 1 << 22  # 16 MiB of float32
REPEATS = 3
SKEW = 1.0  # seconds


def axes(mesh: Mesh) -> dict[str, Axis]:
    """The groups that training uses."""
    return {"tensor": mesh.tensor, "pipeline": mesh.pipeline, "data": mesh.data, "world": mesh.world}


def all_reduces(device: Device, groups: Mapping[str, Axis], world: Axis) -> list[Finding]:
    """Sums on each axis, checked, with the slowest group's bandwidth. All ranks must call it."""
    return [_all_reduce(device, name, axis, world) for name, axis in groups.items()]


def _all_reduce(device: Device, name: str, axis: Axis, world: Axis) -> Finding:
    what = f"{device.backend}, {name} axis"
    if axis.size == 1:
        return Finding(what, Status.OK, "one rank")
    values = torch.full((ELEMENTS,), float(axis.rank + 1), device=device.torch_device)
    expected = axis.size * (axis.size + 1) / 2
    axis.all_reduce(values)
    right = bool((values == expected).all())
    begun = time.monotonic()
    for _ in range(REPEATS):
        axis.all_reduce(values)
    float(values[0])  # waits
    seconds = (time.monotonic() - begun) / REPEATS
    results = world.gather_objects((right, seconds))
    wrong = [rank for rank, (ok, _) in enumerate(results) if not ok]
    sent = 2 * (axis.size - 1) / axis.size * ELEMENTS * 4
    said = f"{axis.size} ranks, {sent / max(one for _, one in results) / 1e9:.2g} GB/s a rank, the slowest group"
    if wrong:
        return Finding(what, Status.FAIL, f"wrong sums on ranks {wrong}", "these ranks' links or devices are broken")
    return Finding(what, Status.OK, said)


def clocks(world: Axis, host: str) -> Finding:
    """How far the hosts' clocks are apart, as far as a collective can say."""
    world.gather_objects(None)  # all begin together
    times = world.gather_objects((host, time.time()))
    return judge_clocks(times)


def judge_clocks(times: list[tuple[str, float]]) -> Finding:
    """Of (host, seconds) pairs that were read at about the same moment."""
    first, last = min(times, key=lambda one: one[1]), max(times, key=lambda one: one[1])
    skew = last[1] - first[1]
    if skew > SKEW:
        remedy = "run a time service; training goes on, but the hosts' logs will not line up"
        said = f"{skew:,.1f} s between {first[0]} and {last[0]}"
        return Finding("clocks", Status.WARN, said, remedy)
    return Finding("clocks", Status.OK, f"{len(times)} ranks within {SKEW:g} s")
