"""The one door to hardware: GPU + NCCL or CPU + gloo, and what Megatron-Core needs to run on a CPU.

Megatron-Core names `cuda` in places that a CPU run also reaches. `_megatron_on_cpu` answers each of them; every
patched symbol is listed in `PATCHES` with the version that it was written for, and has a test.
"""

from __future__ import annotations

import contextlib
import gc
import os
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch
import torch.distributed as dist

from rlpt.config import DeviceConfig
from rlpt.errors import ConfigError

Result = TypeVar("Result")
PATCHES = {  # symbol -> the Megatron-Core version whose use of it was read
    "torch.cuda.current_device": "0.16.1",
    "torch.cuda.synchronize": "0.16.1",
    "torch.cuda.get_rng_state": "0.16.1",
    "torch.cuda.manual_seed": "0.16.1",
    "megatron.core.tensor_parallel.random._get_cuda_rng_state": "0.16.1",
    "megatron.core.tensor_parallel.random._set_cuda_rng_state": "0.16.1",
}
_FACTORIES = (
    "arange",
    "as_tensor",
    "empty",
    "empty_like",
    "full",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "tensor",
    "zeros",
    "zeros_like",
)
_CUDA_TYPES = {
    "torch.FloatTensor": "torch.cuda.FloatTensor",
    "torch.BFloat16Tensor": "torch.cuda.BFloat16Tensor",
    "torch.HalfTensor": "torch.cuda.HalfTensor",
}


@dataclass(frozen=True)
class Device:
    """What this rank computes on."""

    kind: str  # "cpu" | "gpu"
    backend: str  # torch.distributed backend
    dtype: torch.dtype  # of the weights
    torch_device: torch.device
    rank: int
    world_size: int
    local_rank: int

    @contextlib.contextmanager
    def megatron(self) -> Iterator[None]:
        """Inside, Megatron code that asks for a CUDA tensor gets one on this device (nothing to do on a GPU)."""
        if self.kind == "gpu":
            yield
        else:
            with _cpu_instead_of_cuda():
                yield


@contextlib.contextmanager
def _cpu_instead_of_cuda() -> Iterator[None]:
    """Redirects `device="cuda"` to the CPU and answers `.type()` with the CUDA names that Megatron compares with.

    torch's functions are exchanged, not intercepted by a TorchFunctionMode: that would cost every operator its time.
    """
    if getattr(torch.Tensor.type, "is_ours", False):  # inside another one
        yield
        return
    before: list[tuple[Any, str, Any]] = [(torch, name, getattr(torch, name)) for name in _FACTORIES]
    before += [(torch.Tensor, name, getattr(torch.Tensor, name)) for name in ("to", "cuda", "type")]
    try:
        for name in _FACTORIES:
            setattr(torch, name, _on_cpu(getattr(torch, name)))
        torch.Tensor.to = _on_cpu(torch.Tensor.to)  # type: ignore[method-assign]
        torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
        torch.Tensor.type = _cuda_typed(torch.Tensor.type)  # type: ignore[method-assign]
        yield
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    def redirected(*args: Any, **kwargs: Any) -> Any:
        if "device" in kwargs and str(kwargs["device"]).startswith("cuda"):
            kwargs["device"] = "cpu"
        return function(*args, **kwargs)

    return redirected


def _cuda_typed(function: Callable[..., Any]) -> Callable[..., Any]:
    def typed(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = function(tensor, *args, **kwargs)
        return result if args or kwargs else _CUDA_TYPES.get(result, result)

    typed.is_ours = True  # type: ignore[attr-defined]
    return typed


def setup_device(config: DeviceConfig) -> Device:
    """Picks the device, sets threads and joins the process group of the launcher (one rank without a launcher).

    Raises ConfigError when a GPU is asked for and there is none.
    """
    has_gpu = torch.cuda.is_available()
    kind = ("gpu" if has_gpu else "cpu") if config.kind == "auto" else config.kind
    if kind == "gpu" and not has_gpu:
        raise ConfigError("device.kind=gpu, but torch sees no GPU; set device.kind=cpu or install torch for CUDA")
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    local_world = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if kind == "gpu":
        torch.cuda.set_device(local_rank)
        torch_device = torch.device("cuda", local_rank)
    else:
        torch_device = torch.device("cpu")
        torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // local_world))
        import_megatron_quietly()
        _megatron_on_cpu()
    backend = "nccl" if kind == "gpu" else "gloo"
    _join_process_group(backend, torch_device, config.timeout_seconds)
    automatic = "bfloat16" if kind == "gpu" else "float32"
    dtype = getattr(torch, automatic if config.dtype == "auto" else config.dtype)
    return Device(kind, backend, dtype, torch_device, dist.get_rank(), dist.get_world_size(), local_rank)


def _join_process_group(backend: str, torch_device: torch.device, timeout_seconds: int) -> None:
    if dist.is_initialized():
        return
    options: dict[str, Any] = {"timeout": timedelta(seconds=timeout_seconds)}
    if "RANK" not in os.environ:  # started by hand: a group of one
        options |= {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    if backend == "nccl":
        options["device_id"] = torch_device
    dist.init_process_group(backend, **options)


def accelerators() -> list[tuple[str, int, int]]:
    """(name, bytes of memory, bytes of them free) of the GPUs that torch sees on this host."""
    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        found.append((torch.cuda.get_device_name(index), total, free))
    return found


class GraphRecorder:
    """Records what starts on the GPU, so that all of it starts again by one call.

    Its graphs share memory, which it keeps when they are gone: they must run one after another, on one stream. Python
    collects nothing while one is recorded (what an old graph frees would spoil the new one), and memory that waits for
    its next use is left to that, where `torch.cuda.graph` hands all of it back to the driver.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()
        self._first = torch.cuda.CUDAGraph()  # never runs: the memory is kept as long as one of its graphs is
        self._kept = self._capture(self._first, None, lambda: torch.zeros(1, device=self._stream.device))

    def record(self, run: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """What `run` starts, where it has run before -> (replay, what `run` returned). A replay fills the same tensors
        again."""
        graph = torch.cuda.CUDAGraph()
        return graph.replay, self._capture(graph, self._first.pool(), run)

    def _capture(self, graph: Any, pool: Any, run: Callable[[], Result]) -> Result:
        was_enabled = gc.isenabled()
        gc.disable()
        self._stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(self._stream):
                # other threads may do as they please meanwhile
                graph.capture_begin(*([] if pool is None else [pool]), capture_error_mode="thread_local")
                try:
                    result = run()
                finally:
                    graph.capture_end()
        finally:
            if was_enabled:
                gc.enable()
        torch.cuda.current_stream().wait_stream(self._stream)
        return result


_idle_recorders: dict[tuple[int, int], list[GraphRecorder]] = {}  # by device and stream


def lend_recorder(owner: object) -> GraphRecorder:
    """A recorder for graphs that run on the current stream, until `owner` is gone: the next owner on this stream then
    records into the same memory."""
    stream = torch.cuda.current_stream()
    idle = _idle_recorders.setdefault((stream.device_index, stream.cuda_stream), [])
    recorder = idle.pop() if idle else GraphRecorder()
    weakref.finalize(owner, idle.append, recorder).atexit = False
    return recorder


def send(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array on the device. Neither waits for what the GPU has to do before; on a CPU memory is shared."""
    host = torch.from_numpy(np.ascontiguousarray(values))
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)


def fetch(tensor: torch.Tensor) -> Callable[[], np.ndarray]:
    """Sends a tensor to the host without waiting -> what waits for it and returns it.

    Work that is started on a GPU after this call is not waited for.
    """
    if not tensor.is_cuda:
        return tensor.numpy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
    there = torch.cuda.Event()
    there.record()

    def wait() -> np.ndarray:
        there.synchronize()
        return host.numpy()

    return wait


class Lanes:
    """Two queues of work on one device: what is urgent, and what fills the gaps that it leaves.

    On a GPU they are streams, and wherever a multiprocessor comes free the urgent one goes first. A CPU does at once
    what it is given, and nothing is beside anything.
    """

    def __init__(self, device: torch.device) -> None:
        self._urgent = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
        self._patient: Any = None
        self._last: Any = None  # event after the last patient work

    @contextlib.contextmanager
    def urgent(self) -> Iterator[None]:
        """Inside, work is urgent. It begins after all that was started before, and what is started afterwards waits
        for it."""
        if self._urgent is None:
            yield
            return
        self._patient, self._last = torch.cuda.current_stream(), None
        self._urgent.wait_stream(self._patient)
        try:
            with torch.cuda.stream(self._urgent):
                yield
        finally:
            self._patient.wait_stream(self._urgent)

    @contextlib.contextmanager
    def patient(self) -> Iterator[None]:
        """Inside `urgent`: work that runs beside it, and reads nothing that urgent work writes."""
        if self._urgent is None:
            yield
            return
        with torch.cuda.stream(self._patient):
            yield
            self._last = torch.cuda.Event()
            self._last.record()

    def is_free(self) -> bool:
        """Whether the device has done all patient work that it was given."""
        return self._last is None or bool(self._last.query())


def peers_lost(error: BaseException) -> bool:
    """Whether an error says that a collective failed because of other ranks: one is gone, or did not come in time."""
    signs = ("gloo", "pair closure", "Connection closed by peer", "Connection reset by peer", "Timed out waiting")
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(sign.lower() in str(error).lower() for sign in signs)


def leave() -> None:
    """Leaves the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def import_megatron_quietly() -> None:
    """Imports megatron.core without its notices that optional accelerators are absent or settings deprecated."""
    warnings.filterwarnings("ignore", module=r"megatron\.")
    warnings.filterwarnings("ignore", message=r"Please use DTensor instead", category=FutureWarning)
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import megatron.core
        import megatron.core.optimizer
        import megatron.core.pipeline_parallel  # noqa: F401


def _megatron_on_cpu() -> None:
    """Answers Megatron's CUDA calls on a CPU; idempotent."""
    import megatron.core.tensor_parallel.random as megatron_random

    torch.cuda.current_device = lambda: "cpu"  # type: ignore[assignment,return-value]
    torch.cuda.synchronize = lambda device=None: None  # type: ignore[assignment]
    torch.cuda.get_rng_state = lambda device="cuda": torch.get_rng_state()  # type: ignore[assignment]
    torch.cuda.manual_seed = torch.manual_seed  # type: ignore[assignment]
    megatron_random._get_cuda_rng_state = lambda device="cuda", clone=False, graph_safe=False: torch.get_rng_state()
    megatron_random._set_cuda_rng_state = lambda new_state, device=-1, graph_safe=False: torch.set_rng_state(new_state)
    _silence_rng_warning()


def _silence_rng_warning() -> None:
    """On a CPU the tracker's generator *is* the CPU generator, so Megatron's warning that it moved says nothing."""
    import logging

    logging.getLogger("megatron.core.tensor_parallel.random").setLevel(logging.ERROR)


@contextlib.contextmanager
def without_random_states() -> Iterator[None]:
    """Inside, Megatron neither compares nor restores states of generators: pretended tensors have no values."""
    import megatron.core.tensor_parallel.random as megatron_random

    with (
        patch.object(megatron_random.CudaRNGStatesTracker, "fork", lambda *_: contextlib.nullcontext()),
        patch.object(megatron_random, "_get_all_rng_states", lambda: ()),
        patch.object(megatron_random, "_set_all_rng_states", lambda *_: None),
        patch.object(megatron_random, "_fork_rng", contextlib.nullcontext),
    ):
        yield
