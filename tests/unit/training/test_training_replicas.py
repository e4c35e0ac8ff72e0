"""Checksums of tensors: what they see, and who is named."""

import pytest
import torch

from rlpt.training import replicas
from rlpt.training.replicas import _cut, _minority, checksum

TYPES = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float64: torch.int64}


def example(dtype):
    return torch.randn(7, 11, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_single_bit_counts(dtype):
    tensor = example(dtype)
    bits = 8 * tensor.element_size()
    before, seen = int(checksum(tensor)), set()
    for bit in range(bits):
        changed = tensor.clone()
        view = changed.view(TYPES[dtype]).view(-1)
        view[bit % 77] ^= -(1 << (bits - 1)) if bit == bits - 1 else 1 << bit
        seen.add(int(checksum(changed)))
    assert before not in seen
    assert len(seen) == bits


def test_places_count_and_shapes_do_not():
    tensor = example(torch.float32)
    assert checksum(tensor) != checksum(tensor.flip(0))
    assert checksum(tensor) == checksum(tensor.reshape(-1)) == checksum(tensor.clone())
    assert checksum(torch.tensor([0.0])) != checksum(torch.tensor([-0.0]))


def test_chunks_do_not_change_it(monkeypatch):
    tensor = example(torch.float32)
    whole = checksum(tensor)
    for size in (1, 10, 38, 77, 78):
        monkeypatch.setattr(replicas, "CHUNK", size)
        assert checksum(tensor) == whole


@pytest.mark.parametrize(
    ("values", "places"), [([1, 1, 2], [2]), ([3, 1, 1, 1], [0]), ([1, 2], [0, 1]), ([1, 1, 2, 2], [0, 1, 2, 3])]
)
def test_those_that_differ_from_most_are_named(values, places):
    assert list(_minority(values)) == places


def test_long_lists_are_cut():
    assert _cut(["a", "b"]) == "a, b"
    assert _cut(list("abcdefg")) == "a, b, c, d, e and 2 more"
