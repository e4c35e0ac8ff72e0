"""Attention over packed rows: which tokens attend to which, and only that is computed.

Shapes: B rows, T positions, H heads, G groups of them that share a key, d channels. A row holds segments side by side.
A token attends to the past of its own segment, and where that goes on from another one (`parents`) to all of it: the
samples of one prompt stand behind it as branches of a tree, each as if it stood there alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from megatron.core.transformer.attention import SelfAttention
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rlpt.kernels.compiled_attention import Run, Trees, can_compile, compiled_attention
from rlpt.kernels.hardware import can_be_same, suits_triton
from rlpt.kernels.tree_tiles import TreeTiles

DENSE = 256  # positions up to which a row is one call with a mask: less would not be quicker
TILE = 128  # positions up to which short segments share a tile
BLOCK = 1024  # and up to which they share a block


@dataclass(frozen=True)
class Tile:
    """Queries of one row that meet one stretch of keys."""

    row: int
    queries: slice
    keys: slice
    mask: Tensor | None = None  # [queries, keys], 0 or -inf
    is_causal: bool = False
    is_more: bool = False  # the queries have met other keys before


@dataclass(frozen=True)
class Layout:
    """How a microbatch's rows attend, worked out once for all layers. Without any of the optional fields: causally."""

    cos: Tensor  # [T, B, 1, d / 2] of the angles that each position is turned by
    sin: Tensor
    mask: Tensor | None = None  # [B, 1, T, T], 0 or -inf
    tiles: tuple[Tile, ...] = ()  # each query's scores in parts
    blocks: tuple[Tile, ...] = ()  # in one: a block attends to nothing outside itself
    trees: Trees | None = None  # for compiled code
    exact: TreeTiles | None = None  # for kernels that are a decode step's to the last bit

    @staticmethod
    def of(
        frequencies: Tensor,
        positions: Tensor,
        segments: Tensor | None,
        parents: Tensor | None,
        dtype: torch.dtype,
        may_compile: bool = True,
        exact: bool = False,
    ) -> Layout:
        """frequencies [d / 2]; positions, segments and parents [B, T] as in `Batch`; no segments: one a row. `exact`:
        as a decode step attends, to the last bit, where there are kernels for that."""
        angles = positions.t().contiguous().to(frequencies.dtype)[:, :, None, None] * frequencies
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        if may_compile and can_compile(cos):
            return Layout(cos, sin, trees=_trees(positions, segments, parents))
        if exact and can_be_same(cos, 2 * cos.shape[-1]):
            return Layout(cos, sin, exact=TreeTiles.of(_trees(positions, segments, parents), cos.device))
        if segments is None or bool((segments == segments[:, :1]).all()):
            return Layout(cos, sin)
        if segments.shape[1] <= DENSE:
            return Layout(cos, sin, mask=_added(packed_attention_mask(segments, parents), dtype))
        if segments.device.type == "cpu":
            return Layout(cos, sin, tiles=tuple(_tiles(segments, parents, dtype)))
        return Layout(cos, sin, blocks=tuple(_blocks(segments, parents, dtype)))


def packed_attention_mask(segments: Tensor, parents: Tensor | None = None) -> Tensor:
    """segments [B, T] -> [B, 1, T, T], True where attention is not allowed: the future, and segments that are neither
    the token's own nor its parent."""
    length = segments.shape[1]
    future = torch.ones(length, length, dtype=torch.bool, device=segments.device).triu(1)
    keys = segments[:, None, None, :]
    apart = segments[:, None, :, None] != keys
    if parents is not None:
        apart &= (parents[:, None, :, None] != keys) | (keys < 0)
    return apart | future


class PackedSelfAttention(SelfAttention):  # type: ignore[misc]
    """Megatron's projections with attention by a `Layout`, which it hands on as `attention_mask`."""

    def forward(self, hidden_states: Tensor, attention_mask: Layout, **_: Any) -> tuple[Tensor, Tensor | None]:
        """hidden_states [T, B, hidden] -> the same, and no bias; T is the rank's part under sequence parallelism."""
        mixed, _ = self.linear_qkv(hidden_states)
        groups, head = self.num_query_groups_per_partition, self.hidden_size_per_attention_head
        mixed = mixed.view(*mixed.shape[:2], groups, -1, head)
        layout = attention_mask
        if layout.trees is not None:
            attended = compiled_attention(mixed, layout.cos, layout.sin, layout.trees)
        else:
            query, key, value = mixed[:, :, :, :-2].flatten(2, 3), mixed[:, :, :, -2], mixed[:, :, :, -1]
            attended = self.core_attention(query, key, value, layout)
        projected: tuple[Tensor, Tensor | None] = self.linear_proj(attended)
        return projected


class SdpaAttention(nn.Module):
    """Core attention on torch's kernels, with the rotary turn of queries and keys; grouped queries."""

    def __init__(self, config: Any, *_: Any, **__: Any) -> None:
        super().__init__()
        self.scale = 1.0 / config.kv_channels**0.5

    def forward(self, query: Tensor, key: Tensor, value: Tensor, layout: Layout) -> Tensor:
        """query [T, B, H, d], key and value [T, B, G, d], not turned yet -> [T, B, H * d]."""
        query, key = rotate(query, layout.cos, layout.sin), rotate(key, layout.cos, layout.sin)
        if layout.exact is not None:
            from rlpt.kernels.tree_attention import tree_attention

            return tree_attention(query, key, value, layout.exact, self.scale).flatten(2)
        if layout.tiles:
            return tiled_attention(query, key, value, layout.tiles, self.scale)
        if layout.blocks:
            return self._by_blocks(query, key, value, layout.blocks)
        return self._attend(query, key, value, layout.mask)

    def _by_blocks(self, query: Tensor, key: Tensor, value: Tensor, blocks: tuple[Tile, ...]) -> Tensor:
        rows: list[list[Tensor]] = [[] for _ in range(query.shape[1])]
        for block in blocks:
            at = (block.queries, slice(block.row, block.row + 1))
            mask = None if block.mask is None else block.mask[None, None]
            rows[block.row].append(self._attend(query[at], key[at], value[at], mask))
        return torch.cat([torch.cat(row) for row in rows], 1)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        length, rows, heads, channels = query.shape
        q, k, v = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None,
            scale=self.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return out.permute(2, 0, 1, 3).reshape(length, rows, heads * channels)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [T, B, heads, d], its halves turned as pairs by the angles of cos and sin [T, B, 1, d / 2] (Su et al.
    2104.09864)."""
    out: Tensor = _Rotate.apply(x, cos, sin)
    return out


class _Rotate(torch.autograd.Function):
    """The gradient is turned back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, 1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    if suits_triton(x):
        from rlpt.kernels.layers_triton import turned

        return turned(x, cos, sin, sign)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    first, second = x.chunk(2, dim=-1)
    low, high = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=low)
    low.addcmul_(second, sin, value=sign)
    torch.mul(second, cos, out=high)
    high.addcmul_(first, sin, value=-sign)
    return out


def tiled_attention(query: Tensor, key: Tensor, value: Tensor, tiles: tuple[Tile, ...], scale: float) -> Tensor:
    """query [T, B, H, d], key and value [T, B, G, d] -> [T, B, H * d]; 0 for queries that are in no tile. CPU only.

    A query's keys may be spread over tiles: each gives a softmax over its own keys, and two of them are one softmax
    when they are weighed by their sums of exponentials (Milakov and Gimelshein, 1805.02867). The gradient of each
    tile is then that of the whole, from the whole's output and log-sum.
    """
    groups, each = key.shape[2], query.shape[2] // key.shape[2]
    if each > 1:  # a head a key: their gradients are added up by the expansion's own
        key, value = (x[:, :, :, None].expand(-1, -1, -1, each, -1).flatten(2, 3).contiguous() for x in (key, value))
    assert key.shape[2] == groups * each
    out: Tensor = _Tiled.apply(query, key, value, tiles, scale)
    return out.flatten(2)


class _Tiled(torch.autograd.Function):
    """All of [T, B, H, d]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, tiles: tuple[Tile, ...], scale: float) -> Tensor:
        length, rows, heads, _ = query.shape
        out = torch.zeros(query.shape, dtype=query.dtype)
        log_sums = torch.zeros(rows, length, heads, dtype=torch.promote_types(query.dtype, torch.float32))
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        for tile in tiles:
            q, k, v = _of(query, tile.row, tile.queries), *(_of(x, tile.row, tile.keys) for x in (key, value))
            found, found_sums = attend(q, k, v, 0.0, tile.is_causal, attn_mask=_broadcast(tile), scale=scale)
            found, found_sums = found[0].transpose(0, 1), found_sums[0].transpose(0, 1)  # [q, H, d], [q, H]
            here, sums = out[tile.queries, tile.row], log_sums[tile.row, tile.queries]
            if tile.is_more:
                both = torch.logaddexp(sums, found_sums)
                here.mul_((sums - both).exp_()[..., None]).addcmul_(found, (found_sums - both).exp_()[..., None])
                sums.copy_(both)
            else:
                here.copy_(found)
                sums.copy_(found_sums)
        ctx.save_for_backward(query, key, value, out, log_sums)
        ctx.tiles, ctx.scale = tiles, scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, out, log_sums = ctx.saved_tensors
        grads = [torch.zeros(x.shape, dtype=x.dtype) for x in (query, key, value)]
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        for tile in ctx.tiles:
            q, g, o = (_of(x, tile.row, tile.queries) for x in (query, grad, out))
            k, v = (_of(x, tile.row, tile.keys) for x in (key, value))
            sums = log_sums[tile.row, tile.queries].transpose(0, 1)[None]
            mask = _broadcast(tile)
            found = backward(g, q, k, v, o, sums, 0.0, tile.is_causal, attn_mask=mask, scale=ctx.scale)
            for total, part, at in zip(grads, found, (tile.queries, tile.keys, tile.keys)):
                total[at, tile.row] += part[0].transpose(0, 1)
        return *grads, None, None


def _of(x: Tensor, row: int, at: slice) -> Tensor:
    """[T, B, H, d] -> [1, H, t, d] of a row's stretch, not copied."""
    return x[at, row].transpose(0, 1)[None]


def _broadcast(tile: Tile) -> Tensor | None:
    return None if tile.mask is None else tile.mask[None, None]


def _added(forbidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(forbidden.shape, dtype=dtype, device=forbidden.device).masked_fill_(forbidden, -torch.inf)


@dataclass(frozen=True)
class _Run:
    """A segment's place in its row."""

    start: int
    stop: int
    segment: int
    parent: int


def _runs(segments: np.ndarray, parents: np.ndarray | None) -> list[_Run]:
    """segments [T] of one row -> its segments in order, padding among them."""
    starts = np.flatnonzero(np.diff(segments, prepend=segments[0] - 1))
    stops = [*starts[1:], len(segments)]
    return [
        _Run(int(a), int(b), int(segments[a]), -1 if parents is None else int(parents[a]))
        for a, b in zip(starts, stops, strict=True)
    ]


def _tiles(segments: Tensor, parents: Tensor | None, dtype: torch.dtype) -> list[Tile]:
    """Each segment with itself, short neighbours in one tile; then each stretch of branches with its stem."""
    found: list[Tile] = []
    for row in range(segments.shape[0]):
        own = segments[row]
        runs = [r for r in _runs(own.numpy(), None if parents is None else parents[row].numpy()) if r.segment >= 0]
        for part in _gathered(runs, TILE):
            at = slice(part[0].start, part[-1].stop)
            mask = None if len(part) == 1 else _added(packed_attention_mask(own[None, at])[0, 0], dtype)
            found.append(Tile(row, at, at, mask, is_causal=mask is None))
        stems = {run.segment: slice(run.start, run.stop) for run in runs}
        branches = [run for run in runs if run.parent >= 0]
        while branches:
            first = branches[0]
            stretch = 1
            while stretch < len(branches) and (
                branches[stretch].parent == first.parent and branches[stretch].start == branches[stretch - 1].stop
            ):
                stretch += 1
            at = slice(first.start, branches[stretch - 1].stop)
            found.append(Tile(row, at, stems[first.parent], is_more=True))
            branches = branches[stretch:]
    return found


def _trees(positions: Tensor, segments: Tensor | None, parents: Tensor | None) -> Trees:
    rows, length = positions.shape
    segments, parents = (None if one is None else one.cpu() for one in (segments, parents))
    if segments is None:
        return Trees.of([Run(row, 0, length) for row in range(rows)], rows * length)
    found: list[Run] = []
    for row in range(rows):
        stems: dict[int, int] = {}
        for run in _runs(segments[row].numpy(), None if parents is None else parents[row].numpy()):
            if run.segment < 0:
                continue
            stems[run.segment] = len(found)
            found.append(Run(row, run.start, run.stop, stems[run.parent] if run.parent >= 0 else -1))
    return Trees.of(found, rows * length)


def _blocks(segments: Tensor, parents: Tensor | None, dtype: torch.dtype) -> list[Tile]:
    """Stretches of whole trees, padding included: together every position of every row once, in order."""
    found: list[Tile] = []
    for row in range(segments.shape[0]):
        own, above = segments[row].cpu(), None if parents is None else parents[row].cpu()
        trees: list[_Run] = []
        for run in _runs(own.numpy(), None if above is None else above.numpy()):
            if run.parent >= 0:
                trees[-1] = _Run(trees[-1].start, run.stop, trees[-1].segment, run.segment)
            else:
                trees.append(run)
        for part in _gathered(trees, BLOCK):
            at = slice(part[0].start, part[-1].stop)
            alone = len(part) == 1 and part[0].parent < 0
            within = None if parents is None else parents[row : row + 1, at]
            mask = None if alone else _added(packed_attention_mask(segments[row : row + 1, at], within)[0, 0], dtype)
            found.append(Tile(row, at, at, mask, is_causal=alone))
    return found


def _gathered(runs: list[_Run], most: int) -> list[list[_Run]]:
    """Neighbours side by side, together at most `most` positions unless one alone has more."""
    parts: list[list[_Run]] = []
    for run in runs:
        if parts and parts[-1][-1].stop == run.start and run.stop - parts[-1][0].start <= most:
            parts[-1].append(run)
        else:
            parts.append([run])
    return parts
