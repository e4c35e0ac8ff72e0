"""Worker of the tests of attention over trees: runs every check in Triton's interpreter and writes {name: error}.

Started as `TRITON_INTERPRET=1 python interpreted_trees.py OUT`; not a test module itself.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import torch
from helpers.interpreter import write_errors
from helpers.runs_of_trees import allowed_in

from rlpt.kernels.compiled_attention import Run, Trees
from rlpt.kernels.decode_attention import attend_and_store
from rlpt.kernels.tree_attention import attend, tree_attention
from rlpt.kernels.tree_tiles import TreeTiles
from rlpt.models import attention
from rlpt.models.attention import Layout

# A stem with branches of 1 to 70 tokens, a run alone, a stem with one branch, padding; and a run between padding.
FOREST = [
    *(Run(0, 0, 9), Run(0, 9, 13, 0), Run(0, 13, 83, 0), Run(0, 83, 84, 0), Run(0, 84, 101, 0)),
    *(Run(0, 101, 103), Run(0, 103, 136), Run(0, 136, 150, 6)),
    Run(1, 3, 151),
]
LONG_STEM = [Run(0, 0, 130), Run(0, 130, 137, 0), Run(0, 137, 202, 0)]
PLAIN = [Run(0, 0, 70), Run(1, 0, 70)]


def tiles_of(runs: list[Run], positions: int) -> TreeTiles:
    return TreeTiles.of(Trees.of(runs, positions), torch.device("cpu"))


def drawn(length: int, rows: int, groups: int, heads: int, channels: int) -> list[torch.Tensor]:
    """Queries of their own; keys and values as they stand in training: beside other things."""
    query = torch.randn(length, rows, groups * heads, channels, dtype=torch.float64)
    mixed = torch.randn(length, rows, groups, 3, channels, dtype=torch.float64)
    return [query.requires_grad_(), mixed.requires_grad_()]


def formula(
    query: torch.Tensor, mixed: torch.Tensor, runs: list[Run], scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    length, rows, heads, _ = query.shape
    key, value = (mixed[..., part, :].repeat_interleave(heads // mixed.shape[2], 2) for part in (1, 2))
    scores = torch.einsum("qbhd,kbhd->bhqk", query, key) * scale
    scores = scores.masked_fill(~allowed_in(runs, rows, length)[:, None], -torch.inf)
    out = torch.einsum("bhqk,kbhd->qbhd", scores.softmax(-1).nan_to_num(), value)
    return out, scores.logsumexp(-1)


def trees(
    runs: list[Run], length: int, groups: int, heads: int, channels: int, dtype: torch.dtype = torch.float32
) -> float:
    """Output, log-sums and gradients; a gradient at padding comes to nothing."""
    rows, scale = max(run.row for run in runs) + 1, channels**-0.5
    inputs = drawn(length, rows, groups, heads, channels)
    expected, expected_sums = formula(*inputs, runs, scale)
    grad = torch.randn(expected.shape, dtype=torch.float64)
    slopes = torch.autograd.grad(expected, inputs, grad)
    query, mixed = (one.detach().to(dtype).requires_grad_() for one in inputs)
    tiles = tiles_of(runs, rows * length)
    out = tree_attention(query, mixed[..., 1, :], mixed[..., 2, :], tiles, scale)
    found = torch.autograd.grad(out, (query, mixed), grad.to(dtype))
    _, log_sums = attend(query.detach(), *mixed.detach()[..., 1:, :].unbind(3), tiles, scale)
    live = allowed_in(runs, rows, length).any(-1)[:, None].expand_as(log_sums)
    pairs = [(out, expected), *zip(found, slopes, strict=True), (log_sums[live], expected_sums[live])]
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def steps(groups: int, heads: int, channels: int) -> float:
    """The share of numbers in which a decode step is not a tree's row. Blocks, their order and all roundings are the
    same; the interpreter's products alone may add up in another order."""
    length, scale, dtype = 202, channels**-0.5, torch.float16
    query = torch.randn(length, 1, groups * heads, channels).to(dtype)
    key, value = torch.randn(2, length, 1, groups, channels).to(dtype)
    out, _ = attend(query, key, value, tiles_of(LONG_STEM, length), scale)
    turn = torch.ones(1, channels, dtype=dtype), torch.zeros(1, channels, dtype=dtype)
    differ = []
    for column in (0, 63, 64, 129, 130, 136, 137, 191, 192, 201):
        begin = 137 if column >= 137 else 130
        text = [*range(column + 1)] if column < 130 else [*range(130), *range(begin, column + 1)]
        own = [one[column, 0, :, None] for one in (key, value)]
        qkv = torch.cat([query[column].view(groups, heads, channels), *own], 1)[None]
        caches = (one[text, 0].transpose(0, 1)[None].contiguous() for one in (key, value))
        found = attend_and_store(qkv, turn, torch.tensor([len(text) - 1]), *caches, scale)
        differ.append(found.view(-1) != out[column].view(-1))
    return float(torch.stack(differ).float().mean())


def alone(groups: int, heads: int, channels: int) -> float:
    """How far a branch is from the end of a text of its own: nothing, in output and in what it adds to the gradient."""
    length, scale = 202, channels**-0.5
    query, mixed = (one.detach().float() for one in drawn(length, 1, groups, heads, channels))
    places = [*range(130), *range(137, 202)]
    found = [
        attend(q, m[..., 1, :], m[..., 2, :], tiles_of(runs, len(q)), scale)
        for q, m, runs in ((query, mixed, LONG_STEM), (query[places], mixed[places], [Run(0, 0, len(places))]))
    ]
    return float((found[0][0][places] != found[1][0]).sum() + (found[0][1][..., places] != found[1][1]).sum())


def layers() -> float:
    """A layer's attention, turn and all, by the layout of segments and parents: as with a mask, gradients too."""
    columns = torch.arange(160)
    segments, parents, positions = torch.full((2, 160), -1), torch.full((2, 160), -1), torch.zeros(2, 160).long()
    for index, run in enumerate(FOREST):
        own, stem = slice(run.start, run.stop), FOREST[run.stem] if run.stem >= 0 else None
        first = 0 if stem is None else stem.stop - stem.start
        segments[run.row, own], parents[run.row, own] = index, run.stem
        positions[run.row, own] = columns[: run.stop - run.start] + first
    attention.can_be_same = lambda tensor, channels: channels == 16  # type: ignore[assignment]
    given = (torch.tensor([0.9**one for one in range(8)]), positions, segments, parents, torch.float32)
    exact, masked = (Layout.of(*given, may_compile=False, exact=one) for one in (True, False))
    assert exact.exact is not None
    assert masked.mask is not None
    masked.mask.masked_fill_(segments[:, None, :, None] < 0, 0.0)  # padding attends to anything: a softmax of nothing
    inputs = [torch.randn(160, 2, heads, 16, requires_grad=True) for heads in (4, 2, 2)]
    grad = torch.randn(160, 2, 64) * (segments >= 0).t()[..., None]
    core = attention.SdpaAttention(SimpleNamespace(kv_channels=16))
    (out, expected) = (core(*inputs, one) for one in (exact, masked))
    slopes = zip(*(torch.autograd.grad(one, inputs, grad) for one in (out, expected)), strict=True)
    live = (segments >= 0).t()
    assert not out[~live].any()
    return max(float((a - b).detach().abs().max()) for a, b in [(out[live], expected[live]), *slopes])


CHECKS = {
    "a layer": (layers, 1e-5),
    "trees, a head a key": (lambda: trees(FOREST, 160, 2, 1, 32), 1e-5),
    "trees, three heads a key": (lambda: trees(FOREST, 160, 1, 3, 16), 1e-5),
    "trees of many channels": (lambda: trees(FOREST, 160, 1, 1, 128), 1e-5),
    "a stem of several tiles": (lambda: trees(LONG_STEM, 202, 1, 2, 64), 1e-5),
    "texts alone": (lambda: trees(PLAIN, 70, 2, 2, 32), 1e-5),
    "rows without a run": (lambda: trees([Run(1, 2, 5)], 8, 1, 1, 16), 1e-5),
    "trees in half precision": (lambda: trees(FOREST, 160, 1, 2, 32, torch.float16), 2e-2),
    "steps, a head a key": (lambda: steps(2, 1, 32), 0.01),
    "steps, three heads a key": (lambda: steps(1, 3, 64), 0.01),
    "a branch alone": (lambda: alone(1, 2, 32), 0.0),
}


if __name__ == "__main__":
    write_errors(CHECKS, sys.argv[1])
