"""What goes through the model together: the rows of a step's microbatches, as few passes as they fit into.

Rows of trajectories are as long as what was played. Rows of text fill what they leave of a microbatch's positions. The
normalisation contract makes the gradient the same: an objective's terms are added up over parts, wherever they ran.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_

import torch
from torch import Tensor

from rlpt.batch import Batch


@dataclass(frozen=True)
class Pass:
    """Parts of one forward and backward. The tensors are a lone part's own [B, T], or those of all, end to end, as one
    row [1, sum of B * T]."""

    parts: tuple[Batch, ...]
    tokens: Tensor
    positions: Tensor
    segments: Tensor
    parents: Tensor | None
    live: tuple[Tensor, ...]  # of each part, the places of its labels with a loss among its flattened ones

    @property
    def is_sampled(self) -> bool:
        """Whether any part's rows carry what the sampler said of them."""
        return any(part.is_sampled for part in self.parts)

    @classmethod
    def of(cls, parts: Sequence[Batch], device: torch.device) -> Pass:
        """Of at least one part, moved to `device` once all is worked out where the parts are."""
        live = tuple(part.loss_mask.flatten().nonzero().squeeze(1).to(device) for part in parts)
        moved = tuple(part.to(device) for part in parts)
        if len(moved) == 1:
            [one] = moved
            return cls(moved, one.tokens, one.positions, one.segments, one.parents, live)
        segments, parents, taken = [], [], 0
        for part in parts:
            rows = len(part.segments)
            stride = int(part.segments.max()) + 1  # a row's segments are numbered from 0 on
            shift = taken + stride * torch.arange(rows, device=part.segments.device)[:, None]
            segments.append(torch.where(part.segments < 0, -1, part.segments + shift).flatten())
            above = torch.full_like(part.segments, -1) if part.parents is None else part.parents
            parents.append(torch.where(above < 0, -1, above + shift).flatten())
            taken += stride * rows
        has_parents = any(part.parents is not None for part in parts)
        return cls(
            moved,
            torch.cat([part.tokens.flatten() for part in moved])[None],
            torch.cat([part.positions.flatten() for part in moved])[None],
            torch.cat(segments)[None].to(device),
            torch.cat(parents)[None].to(device) if has_parents else None,
            live,
        )

    def places(self) -> list[tuple[Batch, Tensor, int]]:
        """Each part, its `live` places, and where its positions begin among the flattened ones of the pass."""
        found, first = [], 0
        for part, live in zip(self.parts, self.live, strict=True):
            found.append((part, live, first))
            first += part.tokens.numel()
        return found


def fill(batches: Sequence[Batch], room: int, may_split: Callable[[Batch], bool]) -> list[list[Batch]]:
    """The batches as parts of passes of at most `room` positions each (or one part alone).

    Those that `may_split` are spread by rows over what the others leave. Where that takes no fewer passes, the batches
    stay as they are, each its own.
    """
    passes: list[list[Batch]] = []
    left: list[int] = []  # positions, by pass

    def open_pass(batch: Batch) -> None:
        passes.append([batch])
        left.append(room - batch.tokens.numel())

    splits = [may_split(batch) for batch in batches]
    for batch in compress(batches, map(not_, splits)):
        at = next((i for i, free in enumerate(left) if batch.tokens.numel() <= free), None)
        if at is None:
            open_pass(batch)
        else:
            passes[at].append(batch)
            left[at] -= batch.tokens.numel()
    for batch in compress(batches, splits):
        rows, length = batch.tokens.shape
        begin = 0
        for at, free in enumerate(left):
            count = min(rows - begin, max(0, free) // length)
            if count:
                passes[at].append(batch.rows(begin, begin + count))
                left[at] -= count * length
                begin += count
        if begin < rows:
            open_pass(batch.rows(begin, rows) if begin else batch)
    return passes if len(passes) < len(batches) else [[batch] for batch in batches]
