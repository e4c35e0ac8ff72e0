"""One token a row from its logits, in two Triton kernels: one reads every logit, one the tile that is drawn from.

Shapes: n slots, V columns in T tiles, N rows of a call, S legal sets. Inverse-CDF sampling in two levels (Devroye 1986,
Non-Uniform Random Variate Generation, III.2), as `rlpt.rollout.sampling` does it in torch, which is the reference: sums
are f64 here, too, and rounded otherwise, which tells where the uniform number is within about 1e-7 of an edge.

`_tiles_kernel`: a program reads one tile of one slot -> [maximum, sum e^(l - maximum), sum of l over what is legal].

`_draw_kernel`: a program merges a slot's tiles, makes the uniform number of its row and position, and draws. It writes
what the next step of the decoder reads, so that the host has nothing to send between steps that change no row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WORDS = 5  # of a row: seed, key, tokens of its prompt, legal set, ids in that
PLACES = 3  # of a slot: its row (-1: none), tokens in its cache, the row of the logits that is its own
_WIDEST = 4096  # columns of a tile
_LOOSE = ["slots", "tiles"]  # numbers that kernels are not compiled anew for


@triton.jit
def _mixed(z):
    """SplitMix64's finaliser, as in `rlpt.rollout.sampling.keyed_uniform`."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)


@triton.jit
def _uniform(seed, key, position):
    """In [0, 1), f64."""
    state = _mixed(seed.to(tl.uint64, bitcast=True) + 0x9E3779B97F4A7C15)
    state = _mixed(state ^ key.to(tl.uint64, bitcast=True))
    state = _mixed(state + position.to(tl.uint64) * 0xD1342543DE82EF95 + 1)
    return (state >> 11).to(tl.float64) * (1.0 / (1 << 53))


@triton.jit
def _scaled(
    logits, stride, source, column, columns, temperature, legal, words, row, WORDS: tl.constexpr, LEGAL: tl.constexpr,
):  # fmt: skip
    """logits / temperature, -inf where not legal or beyond the columns; and which are neither."""
    allowed = column < columns
    value = tl.load(logits + source * stride + column, mask=allowed, other=float("-inf"))
    heat = tl.load(temperature + row)
    value = value / tl.where(heat > 0, heat, 1.0)
    if LEGAL:
        chosen = tl.load(words + row * WORDS + 3)
        allowed = tl.load(legal + chosen * columns + column, mask=allowed, other=0) != 0
        value = tl.where(allowed, value, float("-inf"))
    return value, allowed


@triton.jit(do_not_specialize=_LOOSE)
def _tiles_kernel(
    logits, places, words, temperature, legal, parts, stride, slots, columns, tiles, WORDS: tl.constexpr,
    LEGAL: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """parts [n, T, 3] f64. Grid: (slots, tiles)."""
    slot = tl.program_id(0)
    tile = tl.program_id(1)
    row = tl.load(places + slot)
    if row >= 0:
        source = tl.load(places + 2 * slots + slot)
        column = tile * TILE + tl.arange(0, TILE)
        value, allowed = _scaled(
            logits, stride, source, column, columns, temperature, legal, words, row, WORDS, LEGAL
        )  # fmt: skip
        peak = tl.max(value, 0)
        # a maximum of -inf, where nothing is legal, must not be subtracted from itself
        weight = tl.exp(value - tl.where(peak == float("-inf"), 0.0, peak))
        place = parts + (slot * tiles + tile) * 3
        tl.store(place, peak.to(tl.float64))
        tl.store(place + 1, tl.sum(weight.to(tl.float64), 0))
        tl.store(place + 2, tl.sum(tl.where(allowed, value, 0.0).to(tl.float64), 0))


@triton.jit
def _crossing(mass, target, index, END: tl.constexpr):
    """Where the running sum of masses first exceeds the target, never at a mass of 0: rounding may put the target at
    the sum of all or above, which the last mass then takes."""
    over = (tl.cumsum(mass, 0) > target) & (mass > 0)
    first = tl.min(tl.where(over, index, END), 0)
    return tl.where(first < END, first, tl.max(tl.where(mass > 0, index, 0), 0))


@triton.jit(do_not_specialize=[*_LOOSE, "told_stride"])
def _draw_kernel(
    logits, places, words, temperature, legal, parts, tokens, lengths, told, stride, slots, columns, tiles, told_stride,
    WORDS: tl.constexpr, LEGAL: tl.constexpr, TILE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Grid: (slots). A slot without a row gets length -1."""
    slot = tl.program_id(0)
    row = tl.load(places + slot)
    if row < 0:
        tl.store(lengths + slot, row)
        tl.store(tokens + slot, row - row)
    else:
        length = tl.load(places + slots + slot)
        source = tl.load(places + 2 * slots + slot)
        own = words + row * WORDS
        heat = tl.load(temperature + row)
        index = tl.arange(0, TILES)
        place = parts + (slot * tiles + index) * 3
        peaks = tl.load(place, mask=index < tiles, other=float("-inf"))
        masses = tl.load(place + 1, mask=index < tiles, other=0.0)
        total = tl.sum(tl.load(place + 2, mask=index < tiles, other=0.0), 0)
        peak = tl.max(peaks, 0)
        masses = masses * tl.exp(peaks - peak)
        mass = tl.sum(masses, 0)
        target = _uniform(tl.load(own), tl.load(own + 1), length - tl.load(own + 2)) * mass
        tile = _crossing(masses, target, index, TILES)
        greedy = tl.min(tl.where(peaks == peak, index, tiles - 1), 0)
        tile = tl.where(heat == 0, greedy, tile)
        target = target - tl.sum(tl.where(index < tile, masses, 0.0), 0)
        top = tl.max(tl.where(index == tile, peaks, float("-inf")), 0)
        inside = tl.arange(0, TILE)
        value, _ = _scaled(
            logits, stride, source, tile * TILE + inside, columns, temperature, legal, words, row, WORDS, LEGAL
        )  # fmt: skip
        weight = tl.exp(value - top.to(tl.float32)).to(tl.float64)
        at = _crossing(weight, target / tl.exp(top - peak), inside, TILE)
        greedy = tl.min(tl.where(value == top.to(tl.float32), inside, TILE - 1), 0)
        at = tl.where(heat == 0, greedy, at)
        drawn = tl.minimum(tile * TILE + at, columns - 1)
        chosen = tl.max(tl.where(inside == at, value, float("-inf")), 0)
        log_sum = peak + tl.log(mass)
        size = tl.load(own + 4).to(tl.float64)
        tl.store(tokens + slot, drawn.to(tl.int64))
        tl.store(lengths + slot, length)
        tl.store(told + slot, drawn.to(tl.float64))
        tl.store(told + told_stride + slot, chosen.to(tl.float64) - log_sum)
        tl.store(told + 2 * told_stride + slot, log_sum - total / size - tl.log(size))
        # for the draw after the next step
        tl.store(places + slots + slot, length + 1)
        tl.store(places + 2 * slots + slot, slot.to(tl.int64))


def tile_shape(columns: int) -> dict[str, int]:
    """Of rows of so many columns."""
    tile = min(_WIDEST, max(16, triton.next_power_of_2(columns)))
    return {"TILE": tile, "num_warps": max(1, tile // 512)}


def draw_rows(
    logits: Tensor,
    places: Tensor,
    words: Tensor,
    temperature: Tensor,
    legal: Tensor | None,
    tokens: Tensor,
    lengths: Tensor,
    told: Tensor,
) -> None:
    """Draws for n slots, of which those without a row have the place -1; `places` then tells of the draw after the next
    step, if no slot changes its row.

    `logits` [rows, V] f32, columns side by side. `places` [PLACES, slots] i64. Of the rows of a call: `words`
    [N, WORDS] i64 and `temperature` [N] f32 (0: the largest logit, of equal ones the lowest id). `legal` [S, V] u8;
    None: all are, and `words` says how many that is. Written: `tokens` [n] i64, `lengths` [n] i64 as in `places`, and
    `told` [3, slots] f64: ids, log-probs, certainty.
    """
    n, slots, columns = len(tokens), places.shape[1], logits.shape[1]
    shape = tile_shape(columns) | {"WORDS": WORDS, "LEGAL": legal is not None}
    tiles = triton.cdiv(columns, shape["TILE"])
    parts = torch.empty(n, tiles, 3, dtype=torch.float64, device=logits.device)
    _tiles_kernel[(n, tiles)](
        logits, places, words, temperature, legal, parts, logits.stride(0), slots, columns, tiles, **shape
    )
    _draw_kernel[(n,)](
        logits, places, words, temperature, legal, parts, tokens, lengths, told, logits.stride(0), slots, columns,
        tiles, told.stride(0), TILES=triton.next_power_of_2(tiles), **shape,
    )  # fmt: skip
