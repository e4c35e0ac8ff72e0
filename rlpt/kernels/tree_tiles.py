"""Which stretches of a microbatch the programs of attention over trees work on (`rlpt.kernels.tree_attention`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlpt.kernels.compiled_attention import Trees

TILE = 64  # queries, or keys, of a program


@dataclass(frozen=True)
class TreeTiles:
    """Of all runs, the most work first; a stem's branches stand right behind it."""

    queries: Tensor  # [tiles, 6] i32: row, the stem's first column and length (0: none), the run's, first query in it
    keys: Tensor  # [tiles, 4] i32: row, first key's column, the run's stop, stop of the queries that attend to it
    covers_all: bool  # no position is in no run

    @staticmethod
    def of(trees: Trees, device: torch.device) -> TreeTiles:
        """Worked out on the host, and moved in one copy."""
        rows, starts, stops, stems = trees.runs.numpy().T
        sizes = stops - starts
        is_branch = stems >= 0
        stem_starts = np.where(is_branch, starts[stems], 0)
        stem_sizes = np.where(is_branch, sizes[stems], 0)
        ends, members = stops.copy(), sizes.copy()
        np.maximum.at(ends, stems[is_branch], stops[is_branch])
        np.add.at(members, stems[is_branch], sizes[is_branch])
        assert (members == ends - starts).all(), "a stem's branches do not stand right behind it"
        assert (rows[stems] == rows)[is_branch].all(), "a branch stands in another row than its stem"
        counts = -(-sizes // TILE)
        run = np.repeat(np.arange(len(sizes)), counts)
        first = (np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)) * TILE
        queries = np.stack([rows[run], stem_starts[run], stem_sizes[run], starts[run], sizes[run], first], 1)
        queries = queries[np.argsort(-(stem_sizes[run] + first), kind="stable")]
        begin = starts[run] + first
        keys = np.stack([rows[run], begin, stops[run], ends[run]], 1)
        keys = keys[np.argsort(begin - ends[run], kind="stable")]
        both = np.concatenate([keys, queries], None).astype(np.int32)
        moved = torch.from_numpy(both).to(device)  # keys first: both begin at a multiple of 16 bytes
        return TreeTiles(moved[keys.size :].view(-1, 6), moved[: keys.size].view(-1, 4), trees.covers_all)
