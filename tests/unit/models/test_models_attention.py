"""Attention over packed rows against its formula: dense, in tiles and in blocks, values and gradients."""

from types import SimpleNamespace

import pytest
import torch

from rlpt.models import attention
from rlpt.models.attention import Layout, SdpaAttention, packed_attention_mask, rotate

HEADS, GROUPS, D = 4, 2, 6
FREQUENCIES = torch.tensor([1.0, 0.3, 0.05], dtype=torch.float64)


def tensors(length, rows, groups=GROUPS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(length, rows, HEADS, D), (length, rows, groups, D), (length, rows, groups, D)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


def turned_by_hand(x, positions):
    """Pairs (x_i, x_i+d/2) as complex numbers."""
    angles = positions.t()[:, :, None, None] * FREQUENCIES
    pairs = torch.complex(x[..., : D // 2], x[..., D // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([pairs.real, pairs.imag], -1)


def by_hand(query, key, value, positions, allowed):
    """softmax(q k / sqrt(d)) v with one loop a row and head."""
    query, key = turned_by_hand(query, positions), turned_by_hand(key, positions)
    rows = []
    for row in range(query.shape[1]):
        heads = []
        for head in range(HEADS):
            group = head // (HEADS // key.shape[2])
            scores = query[:, row, head] @ key[:, row, group].T / D**0.5
            weights = scores.masked_fill(~allowed[row], -torch.inf).softmax(-1).nan_to_num()
            heads.append(weights @ value[:, row, group])
        rows.append(torch.cat(heads, -1))
    return torch.stack(rows, 1)


def tree_rows():
    """Rows of a stem with three branches, two plain segments, a stem with one branch, and padding; and of one segment
    with padding."""
    sizes = [(9, -1), (4, 0), (150, 0), (1, 0), (30, -1), (2, -1), (140, -1), (7, 6), (6, None)]
    segments, parents, positions = [], [], []
    for index, (size, parent) in enumerate(sizes):
        segments += [index if parent is not None else -1] * size
        parents += [-1 if parent is None else parent] * size
        first = 0 if parent in (-1, None) else sizes[parent][0]
        positions += list(range(first, first + size))
    length = len(segments)
    return (
        torch.tensor([segments, [0] * (length - 5) + [-1] * 5]),
        torch.tensor([parents, [-1] * length]),
        torch.tensor([positions, list(range(length))]),
    )


def allowed_in(segments, parents):
    """One pair of positions at a time."""
    rows, length = segments.shape
    found = torch.zeros(rows, length, length, dtype=torch.bool)
    for row in range(rows):
        own, above = segments[row].tolist(), parents[row].tolist()
        for query in range(length):
            for key in range(query + 1):
                found[row, query, key] = own[key] == own[query] or (own[key] >= 0 and own[key] == above[query])
    return found


WAYS = ["mask", "tiles", "blocks"]


def layout_in(way, segments, parents, positions, monkeypatch):
    """The layout that `way` says, whatever the row's length would choose."""
    monkeypatch.setattr(attention, "DENSE", 10_000 if way == "mask" else 0)
    if way == "blocks":
        monkeypatch.setattr(attention, "_tiles", lambda *_: ())
        monkeypatch.setattr(attention, "BLOCK", 40)
    layout = Layout.of(FREQUENCIES, positions, segments, parents, torch.float64)
    if way == "blocks":
        return Layout(layout.cos, layout.sin, blocks=tuple(attention._blocks(segments, parents, torch.float64)))
    assert bool(layout.tiles) == (way == "tiles")
    return layout


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("way", WAYS)
def test_branches_attend_to_their_stem_and_themselves(way, groups, monkeypatch):
    segments, parents, positions = tree_rows()
    layout = layout_in(way, segments, parents, positions, monkeypatch)
    query, key, value = tensors(segments.shape[1], 2, groups)
    found = SdpaAttention(SimpleNamespace(kv_channels=D))(query, key, value, layout)
    wanted = by_hand(query, key, value, positions, allowed_in(segments, parents))
    live = (segments >= 0).t()[..., None]  # what padding gives reaches nothing
    seed = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * live
    torch.testing.assert_close(found * live, wanted * live, rtol=0, atol=1e-12)
    pairs = [torch.autograd.grad((x * seed).sum(), (query, key, value)) for x in (found, wanted)]
    for ours, theirs in zip(*pairs):
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_a_branch_is_what_it_would_be_alone(way, monkeypatch):
    """Behind its stem in a row of its own, at one position after the other."""
    segments, parents, positions = tree_rows()
    query, key, value = tensors(segments.shape[1], 2)
    attend = SdpaAttention(SimpleNamespace(kv_channels=D))
    whole = attend(query, key, value, layout_in(way, segments, parents, positions, monkeypatch))
    places = [*range(9), *range(13, 163)]
    alone = Layout.of(FREQUENCIES, torch.arange(len(places))[None], None, None, torch.float64)
    row = attend(*(x[places, :1] for x in (query, key, value)), alone)
    torch.testing.assert_close(whole[places[9:], 0], row[9:, 0], rtol=0, atol=1e-12)
    assert (whole[13:22, 0] - row[:9, 0]).abs().max() > 1e-2


def test_a_row_of_one_segment_is_causal():
    positions = torch.arange(7).expand(2, 7)
    layout = Layout.of(FREQUENCIES, positions, torch.zeros(2, 7, dtype=torch.int64), None, torch.float64)
    assert layout.mask is None
    assert not layout.tiles
    query, key, value = tensors(7, 2)
    causal = torch.ones(7, 7, dtype=torch.bool).tril().expand(2, 7, 7)
    found = SdpaAttention(SimpleNamespace(kv_channels=D))(query, key, value, layout)
    torch.testing.assert_close(found, by_hand(query, key, value, positions, causal), rtol=0, atol=1e-12)


def test_only_who_asks_gets_the_decode_steps_arithmetic_and_only_from_devices_that_have_it(monkeypatch):
    segments, parents, positions = tree_rows()
    given = (FREQUENCIES, positions, segments, parents, torch.float64)
    assert Layout.of(*given, exact=True).exact is None
    monkeypatch.setattr(attention, "can_be_same", lambda tensor, channels: channels == D)
    assert Layout.of(*given).exact is None
    tiles = Layout.of(*given, exact=True).exact
    assert tiles is not None
    assert tiles.keys.tolist()[:3] == [[1, 0, 344, 344], [1, 64, 344, 344], [1, 128, 344, 344]]
    assert [0, 0, 9, 164] in tiles.keys.tolist()  # the stem's keys and all queries of its tree
    assert not tiles.covers_all


def test_scores_depend_on_distances_only():
    query, key, _ = (x.detach() for x in tensors(5, 1, HEADS))
    products = []
    for start in (0, 100):
        positions = torch.arange(start, start + 5)[None]
        layout = Layout.of(FREQUENCIES, positions, None, None, torch.float64)
        q, k = rotate(query, layout.cos, layout.sin), rotate(key, layout.cos, layout.sin)
        products.append(torch.einsum("qbhd,kbhd->bhqk", q, k))
    torch.testing.assert_close(*products, rtol=0, atol=1e-12)
    assert (products[0] - torch.einsum("qbhd,kbhd->bhqk", query, key)).abs().max() > 0.1


def test_packed_mask_by_hand():
    mask = packed_attention_mask(torch.tensor([[0, 0, 1]]))
    assert mask.shape == (1, 1, 3, 3)
    assert mask[0, 0].tolist() == [[False, True, True], [False, False, True], [True, True, False]]
    mask = packed_attention_mask(torch.tensor([[0, 1, 2]]), torch.tensor([[-1, 0, 0]]))
    assert mask[0, 0].tolist() == [[False, True, True], [False, False, True], [False, True, False]]
