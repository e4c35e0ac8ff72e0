"""How much the output layer's one pass in Triton holds at a time; nothing here needs Triton."""

from __future__ import annotations

LOGIT_BYTES = 896 << 20  # of a chunk: each costs the caller's slopes, some thirty small kernels
LEAST_ROWS = 256  # of a chunk, however wide
HELD_BYTES = 2 << 30  # of the gradient in the logits
_FLOAT32 = 4


def chunk_rows(columns: int) -> int:
    """Rows of a chunk, whose f32 logits take at most `LOGIT_BYTES`: whole tiles of a product."""
    return max(LEAST_ROWS, LOGIT_BYTES // (_FLOAT32 * max(1, columns)) // 256 * 256)


def held_rows(rows: int, chunk: int, columns: int, width: int, held_bytes: int = HELD_BYTES) -> int:
    """Of `rows`, those whose gradient in the logits is there at a time; `width` bytes a number."""
    return min(max(chunk, held_bytes // max(1, columns * width)), rows)


def one_pass_bytes(rows: int, columns: int, width: int) -> int:
    """What a call of `rows` holds at its fullest beside its inputs and outputs."""
    chunk = min(chunk_rows(columns), rows)
    return columns * (_FLOAT32 * chunk + width * held_rows(rows, chunk, columns, width))
