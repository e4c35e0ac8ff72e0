"""A next-token step against the tensor-parallel size.

There is one world of ranks a size, all at the same time: each waits at a store for its turn, so that sizes are measured
in paired rounds, and no process starts within a round.

`python -m rlpt.launcher ... -m rlpt.bench.growth.tensor JSON` starts a world; see `Order`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore

from rlpt.bench.generation import Shape, model_config
from rlpt.bench.growth.curves import Curve, Growth, Way, curves
from rlpt.bench.growth.laws import ring_bytes, sent_bytes, state_bytes
from rlpt.bench.memory import nothing_kept, peak_bytes, resident_bytes
from rlpt.bench.paired import machine, run_paired
from rlpt.bench.step import our_step
from rlpt.distributed.device import Device, accelerators, leave, setup_device
from rlpt.errors import UserError
from rlpt.training.preemption import die_with_parent

_HOST = "127.0.0.1"
_LOOK_SECONDS = 0.05  # between looks at what ranks have done
_STOP_SECONDS = 60  # that ranks get to end
_PATIENCE = timedelta(hours=2)  # of ranks that wait for their turn
_RUN, _STOP = "run", "stop"
_ALL_REDUCES = 20  # of which the quickest counts


@dataclass(frozen=True)
class Steps:
    """What is measured: a model's shape, rows of its sequence length, and the sizes."""

    shape: Shape
    rows: int
    pairs: int
    device_kind: str  # "cpu" or "gpu"
    sizes: Sequence[int]


@dataclass(frozen=True)
class RankReport:
    """Of a world's first rank."""

    state: int  # bytes that the model and its optimizer have come to hold after steps
    peak: int  # bytes that a step adds to that
    sent_per_second: float  # bytes, in all-reduces of [tokens, hidden]; 0 for one rank


def tensor(steps: Steps) -> Growth:
    """Worlds of 1, 2, 4 ranks; a thread each on a CPU. On GPUs only sizes for which there are enough."""
    device_kind = steps.device_kind
    sizes = [size for size in steps.sizes if device_kind == "cpu" or size <= len(accelerators())]
    if not sizes:
        raise UserError(f"--axis tensor: no size of {list(steps.sizes)} fits the {len(accelerators())} GPUs here")
    with ExitStack() as stack:
        store = TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        worlds = {size: stack.enter_context(_world(store, steps, size, folder)) for size in sizes}
        reports = {size: world.report() for size, world in worlds.items()}
        found = run_paired({f"tensor {size}": world.step for size, world in worlds.items()}, steps.pairs)
    seconds = {size: found[f"tensor {size}"] for size in sizes}
    shape, tokens = steps.shape, steps.rows * steps.shape.sequence_length
    itemsize, dtype = (4, "float32") if device_kind == "cpu" else (2, "bfloat16")
    notes = [
        "time: that of one rank over TP, and the bytes of the step's all-reduces at the rate measured for one of them.",
        "memory: a rank's weights, gradients and moments; a step adds to them at its peak "
        + ", ".join(f"{report.peak / 2**20:.0f} MiB (TP {size})" for size, report in reports.items())
        + ".",
    ]
    if device_kind == "cpu" and max(sizes) > machine()["cores"]:
        notes.append(f"{machine()['cores']} cores: with more ranks than that, ranks take turns on them.")
    return Growth(
        "tensor",
        "Tensor-parallel size",
        "ranks",
        f"{shape.describe()}, {dtype}; next-token step of {steps.rows} x {shape.sequence_length} tokens"
        + (", a thread a rank" if device_kind == "cpu" else ""),
        tuple(notes),
        tensor_curves(shape, tokens, itemsize, seconds, reports),
    )


def tensor_curves(
    shape: Shape,
    tokens: int,
    itemsize: int,
    seconds: dict[int, list[float]],
    reports: dict[int, RankReport],
) -> tuple[Curve, ...]:
    """`seconds` of each round and what a rank reported, by size. The first size's time stands for its computation."""
    sizes = list(seconds)
    computed = sorted(seconds[sizes[0]])[len(seconds[sizes[0]]) // 2] * sizes[0]

    def work(size: int) -> float:
        if size == 1:
            return computed
        return computed / size + sent_bytes(shape, tokens, size, itemsize) / reports[size].sent_per_second

    way = Way("a rank", _unprepared, work, lambda size: state_bytes(shape, size, itemsize))
    measured = {(way.name, size): values for size, values in seconds.items()}
    return curves([way], sizes, measured, {(way.name, size): report.state for size, report in reports.items()})


@contextmanager
def _unprepared(size: int) -> Iterator[Callable[[], Any]]:
    raise AssertionError("worlds run by themselves")
    yield


@dataclass(frozen=True)
class Order:
    """What the ranks of a world are told."""

    port: int  # of the store
    ranks: int
    rows: int
    device_kind: str
    shape: dict[str, int]


class World:
    """Ranks that wait for their turns."""

    def __init__(self, store: TCPStore, size: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.store, self.size, self.process, self.log = store, size, process, log
        self.turn = 0

    def report(self) -> RankReport:
        """Waits until the ranks are ready."""
        return RankReport(**json.loads(self._wait(_key(self.size, "report"))))

    def step(self) -> float:
        """Seconds of one step."""
        self.store.set(_key(self.size, "go", self.turn), _RUN)
        seconds = float(self._wait(_key(self.size, "done", self.turn)))
        self.turn += 1
        return seconds

    def stop(self) -> None:
        """Ends the ranks."""
        self.store.set(_key(self.size, "go", self.turn), _STOP)
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait(self, key: str) -> str:
        """Raises UserError where the ranks end instead."""
        while not self.store.check([key]):
            if self.process.poll() is not None:
                end = self.log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
                raise UserError(f"tensor {self.size}: the ranks ended with exit code {self.process.returncode}\n{end}")
            time.sleep(_LOOK_SECONDS)
        return self.store.get(key).decode()


@contextmanager
def _world(store: TCPStore, steps: Steps, size: int, folder: Path) -> Iterator[World]:
    order = Order(store.port, size, steps.rows, steps.device_kind, asdict(steps.shape))
    ranks = ["--standalone", "--nproc-per-node", str(size)]
    command = [sys.executable, "-m", "rlpt.launcher", *ranks, "-m", __spec__.name, json.dumps(asdict(order))]
    log = folder / f"{size}.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
    world = World(store, size, process, log)
    try:
        yield world
    finally:
        world.stop()


def _key(size: int, *parts: str | int) -> str:
    return "/".join(map(str, (size, *parts)))


def serve(order: Order) -> None:
    """One rank: steps when its world's turn comes, until it is told to stop."""
    store = TCPStore(_HOST, order.port, is_master=False, timeout=_PATIENCE)
    shape = Shape(**order.shape)
    config = model_config(shape, order.device_kind, threads=1, tensor=order.ranks)
    device = setup_device(config.device)
    size = (1, order.rows, shape.sequence_length + 1)
    texts = torch.randint(shape.vocab_size, size, generator=torch.Generator().manual_seed(1)).to(device.torch_device)
    with nothing_kept():
        before = resident_bytes(device.torch_device)
        step = our_step(config, shape.vocab_size, device)
        for _ in range(2):
            step(texts)
        state = resident_bytes(device.torch_device) - before
        peak = peak_bytes(lambda: step(texts), device.torch_device)
    report = RankReport(state, peak, _sent_per_second(device, order.rows * shape.sequence_length, shape.hidden_size))
    if device.rank == 0:
        store.set(_key(order.ranks, "report"), json.dumps(asdict(report)))
    step(texts)
    turn = 0
    while store.get(_key(order.ranks, "go", turn)).decode() == _RUN:
        start = time.perf_counter()
        step(texts)
        if device.rank == 0:
            store.set(_key(order.ranks, "done", turn), str(time.perf_counter() - start))
        turn += 1
    leave()


def _sent_per_second(device: Device, tokens: int, hidden: int) -> float:
    """Bytes, in all-reduces of [tokens, hidden] over all ranks; 0 where there is one."""
    if device.world_size == 1:
        return 0.0
    tensor = torch.zeros(tokens, hidden, dtype=device.dtype, device=device.torch_device)
    seconds = []
    for _ in range(_ALL_REDUCES):
        torch.distributed.barrier()
        start = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        tensor[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return ring_bytes(tensor.nbytes, device.world_size) / min(seconds)


if __name__ == "__main__":
    serve(Order(**json.loads(sys.argv[1])))
