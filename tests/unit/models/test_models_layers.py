"""RMSNorm against its formula."""

from types import SimpleNamespace

import torch

from rlpt.models.layers import RMSNorm


def config(dtype=torch.float32):
    return SimpleNamespace(params_dtype=dtype, sequence_parallel=False)


def test_rms_norm():
    norm = RMSNorm(config(), 5, eps=1e-3)
    x = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        norm.weight.copy_(torch.arange(1.0, 6.0))
    wanted = x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * torch.arange(1.0, 6.0)
    torch.testing.assert_close(norm(x), wanted)
    assert not torch.allclose(norm(x), x)


def test_rms_norm_computes_above_bfloat16():
    norm = RMSNorm(config(torch.bfloat16), 256)
    x = torch.randn(8, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    wanted = (x.float() / (x.float().square().mean(-1, keepdim=True) + 1e-5).sqrt()).bfloat16()
    assert norm(x).dtype == torch.bfloat16
    assert torch.equal(norm(x), wanted)
