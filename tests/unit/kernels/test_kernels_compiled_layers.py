"""Compiled RMSNorm and SwiGLU against their formulas in float64, values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from rlpt.kernels import compiler
from rlpt.kernels.compiled_layers import can_compile, gated, gated_backward, normalized, normalized_backward

pytestmark = pytest.mark.skipif(compiler.compiler() is None, reason="no C++ compiler on this machine")


def same(found, wanted):
    largest = max(1.0, float(wanted.detach().abs().max()))
    torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=2e-6 * largest)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(5, 3, 48), (7, 17), (1, 1), (300, 128), (0, 8)])
def test_norm(shape, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    torch.manual_seed(0)
    x, weight, grad = torch.randn(shape) * 3, torch.randn(shape[-1]), torch.randn(shape)
    assert can_compile(x)
    wide = [t.double().requires_grad_() for t in (x, weight)]
    wanted = F.rms_norm(wide[0], shape[-1:], wide[1], 1e-5)
    slopes = torch.autograd.grad(wanted, wide, grad.double())
    out, scale = normalized(x, weight, 1e-5)
    found = normalized_backward(x, weight, scale, grad)
    if x.numel():
        for ours, theirs in zip((out, *found), (wanted, *slopes), strict=True):
            same(ours, theirs)
    else:
        assert out.shape == shape
        assert not found[1].any()


@pytest.mark.parametrize("shape", [(5, 3, 96), (7, 34), (1, 2), (300, 704)])
def test_gate(shape):
    torch.manual_seed(0)
    both, grad = torch.randn(shape) * 4, torch.randn(*shape[:-1], shape[-1] // 2)
    both.view(-1)[0] = 200.0  # neither end of the exponential is left
    both.view(-1)[-1] = -200.0
    wide = both.double().requires_grad_()
    gate, up = wide.chunk(2, -1)
    wanted = F.silu(gate) * up
    (slope,) = torch.autograd.grad(wanted, wide, grad.double())
    same(gated(both), wanted)
    same(gated_backward(both, grad), slope)


def test_rows_in_a_wider_tensor():
    torch.manual_seed(0)
    x, weight = torch.randn(6, 4, 40)[:, 1:3, 8:], torch.rand(32)
    assert torch.equal(normalized(x, weight, 1e-5)[0], normalized(x.contiguous(), weight, 1e-5)[0])
    assert torch.equal(gated(x), gated(x.contiguous()))


def test_a_plan_gets_shapes():
    with FakeTensorMode():
        x, weight = torch.ones(3, 5, 8), torch.ones(8)
        assert can_compile(x)
        out, scale = normalized(x, weight, 1e-5)
        assert [t.shape for t in normalized_backward(x, weight, scale, out)] == [x.shape, weight.shape]
        assert gated_backward(x, gated(x)).shape == x.shape


def test_only_float32_is_taken():
    assert not can_compile(torch.ones(3, dtype=torch.float64))
    assert not can_compile(torch.ones(3, dtype=torch.bfloat16))
