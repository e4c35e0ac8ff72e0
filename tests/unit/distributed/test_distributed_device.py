"""The device door on a CPU: each symbol of Megatron's that is answered, and what Megatron code gets inside it."""

import importlib
import importlib.metadata

import pytest
import torch

from rlpt.config import DeviceConfig
from rlpt.distributed.device import PATCHES, Device, _megatron_on_cpu, import_megatron_quietly, setup_device
from rlpt.errors import ConfigError

import_megatron_quietly()
megatron_random = importlib.import_module("megatron.core.tensor_parallel.random")
CPU = Device("cpu", "none", torch.float32, torch.device("cpu"), 0, 1, 0)


def holder(symbol):
    """(module, attribute) of a patched symbol."""
    module, _, name = symbol.rpartition(".")
    return {"torch.cuda": torch.cuda, "megatron.core.tensor_parallel.random": megatron_random}[module], name


@pytest.fixture
def patched(monkeypatch):
    """The patches for one test only."""
    for symbol in PATCHES:
        module, name = holder(symbol)
        monkeypatch.setattr(module, name, getattr(module, name))
    state = torch.get_rng_state()
    _megatron_on_cpu()
    yield
    torch.set_rng_state(state)


def current_device():
    assert torch.cuda.current_device() == "cpu"
    assert torch.zeros(2, device=torch.cuda.current_device()).device.type == "cpu"


def synchronize():
    assert torch.cuda.synchronize() is None
    assert torch.cuda.synchronize(torch.cuda.current_device()) is None


def get_rng_state():
    assert torch.equal(torch.cuda.get_rng_state(), torch.get_rng_state())


def manual_seed():
    torch.cuda.manual_seed(7)
    one = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(one, torch.rand(3))


def get_state():
    assert torch.equal(megatron_random._get_cuda_rng_state(), torch.get_rng_state())
    assert torch.equal(megatron_random._get_cuda_rng_state(clone=True, graph_safe=False), torch.get_rng_state())


def set_state():
    kept = megatron_random._get_cuda_rng_state()
    one = torch.rand(3)
    megatron_random._set_cuda_rng_state(kept, graph_safe=False)
    assert torch.equal(one, torch.rand(3))


BEHAVIOUR = {
    "torch.cuda.current_device": current_device,
    "torch.cuda.synchronize": synchronize,
    "torch.cuda.get_rng_state": get_rng_state,
    "torch.cuda.manual_seed": manual_seed,
    "megatron.core.tensor_parallel.random._get_cuda_rng_state": get_state,
    "megatron.core.tensor_parallel.random._set_cuda_rng_state": set_state,
}


def test_every_patch_has_a_test_and_nothing_else_is_patched(monkeypatch):
    assert set(BEHAVIOUR) == set(PATCHES)
    for symbol in PATCHES:
        monkeypatch.setattr(*holder(symbol), object())
    places = {"torch.cuda": torch.cuda, "megatron.core.tensor_parallel.random": megatron_random}
    before = {(place, name): value for place, module in places.items() for name, value in vars(module).items()}
    _megatron_on_cpu()
    changed = {f"{place}.{name}" for (place, name), old in before.items() if getattr(places[place], name) is not old}
    assert changed == set(PATCHES)


@pytest.mark.parametrize("symbol", PATCHES)
def test_patch_answers_on_a_cpu(patched, symbol):
    BEHAVIOUR[symbol]()


@pytest.mark.parametrize("symbol", PATCHES)
def test_patch_was_written_for_a_megatron_that_is_no_newer_than_the_one_here(symbol):
    version = lambda text: tuple(int(part) for part in text.split(".")[:3])  # noqa: E731
    assert version(PATCHES[symbol]) <= version(importlib.metadata.version("megatron-core"))
    module, name = holder(symbol)
    assert hasattr(module, name)


def test_megatrons_random_tracker_keeps_its_streams_apart(patched):
    """What the patches are for: named streams that neither follow nor disturb the default one."""
    tracker = megatron_random.CudaRNGStatesTracker()
    tracker.add("one", 1)
    tracker.add("two", 2)
    torch.manual_seed(0)
    wanted = torch.rand(2)
    torch.manual_seed(0)
    drawn = []
    for name in ("one", "two", "one"):
        with tracker.fork(name):
            drawn.append(torch.rand(2))
    assert torch.equal(torch.rand(2), wanted)
    assert len({tuple(values.tolist()) for values in drawn}) == 3
    again = megatron_random.CudaRNGStatesTracker()
    again.add("one", 1)
    with again.fork("one"):
        assert torch.equal(torch.rand(2), drawn[0])


def test_inside_the_door_a_gpu_tensor_is_a_cpu_tensor():
    weight = torch.zeros(2)
    with CPU.megatron():
        assert torch.ones(3, device="cuda").device.type == "cpu"
        assert torch.tensor([1], device="cuda:0").device.type == "cpu"
        assert torch.empty(2, dtype=torch.float64, device=torch.device("cuda")).dtype == torch.float64
        assert torch.ones(1, device="meta").device.type == "meta"  # other devices stay
        assert weight.cuda() is weight


def test_inside_the_door_types_have_the_names_that_megatron_compares_with():
    with CPU.megatron():
        assert torch.zeros(1).type() == "torch.cuda.FloatTensor"
        assert torch.zeros(1, dtype=torch.bfloat16).type() == "torch.cuda.BFloat16Tensor"
        assert torch.zeros(1, dtype=torch.int64).type() == "torch.LongTensor"
        assert torch.zeros(1).type(torch.float64).dtype == torch.float64  # a conversion is one
    assert torch.zeros(1).type() == "torch.FloatTensor"


def test_on_a_gpu_the_door_is_open():
    with Device("gpu", "none", torch.bfloat16, torch.device("meta"), 0, 1, 0).megatron():
        assert torch.zeros(1).type() == "torch.FloatTensor"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match=r"device\.kind=gpu, but torch sees no GPU; set device\.kind=cpu"):
        setup_device(DeviceConfig(kind="gpu"))
