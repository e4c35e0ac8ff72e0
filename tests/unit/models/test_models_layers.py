"""Our layers against their formulas."""

from types import SimpleNamespace

import pytest
import torch

from rlpt.models.layers import RMSNorm, SdpaAttention, packed_attention_mask

T, B, HEADS, GROUPS, D = 7, 2, 4, 2, 6


def config(dtype=torch.float32):
    return SimpleNamespace(params_dtype=dtype, sequence_parallel=False, kv_channels=D)


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


def tensors():
    generator = torch.Generator().manual_seed(1)
    shapes = [(T, B, HEADS, D), (T, B, GROUPS, D), (T, B, GROUPS, D)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def by_hand(query, key, value, allowed):
    """softmax(q k / sqrt(d)) v with one loop a row and head."""
    out = torch.zeros(T, B, HEADS, D)
    for row in range(B):
        for head in range(HEADS):
            group = head // (HEADS // GROUPS)
            scores = query[:, row, head] @ key[:, row, group].T / D**0.5
            scores = scores.masked_fill(~allowed[row], -torch.inf)
            out[:, row, head] = scores.softmax(-1) @ value[:, row, group]
    return out.flatten(2)


@pytest.mark.parametrize("packed", [False, True])
def test_attention(packed):
    segments = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0, -1]])
    causal = torch.ones(T, T, dtype=torch.bool).tril().expand(B, T, T)
    allowed = causal & (segments[:, :, None] == segments[:, None, :]) if packed else causal
    mask = packed_attention_mask(segments) if packed else None
    query, key, value = tensors()
    found = SdpaAttention(config())(query, key, value, mask)
    assert found.shape == (T, B, HEADS * D)
    torch.testing.assert_close(found, by_hand(query, key, value, allowed))


def test_packed_mask_by_hand():
    mask = packed_attention_mask(torch.tensor([[0, 0, 1]]))
    assert mask.shape == (1, 1, 3, 3)
    assert mask[0, 0].tolist() == [[False, True, True], [False, False, True], [True, True, False]]
