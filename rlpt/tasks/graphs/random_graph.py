"""Random connected graphs, as lists of two-digit edges."""

from __future__ import annotations

import random


def connected_edges(rng: random.Random, nodes: str, extra: int) -> list[str]:
    """Different edges, in random order and direction, of a random tree over `nodes` and of `extra` other pairs (of all
    pairs, where there are fewer)."""
    order = rng.sample(nodes, len(nodes))
    tree = {(int(rng.random() * i), i) for i in range(1, len(order))}
    missing = [(i, j) for j in range(2, len(order)) for i in range(j) if (i, j) not in tree]
    pairs = [*sorted(tree), *rng.sample(missing, min(extra, len(missing)))]
    rng.shuffle(pairs)
    return [order[i] + order[j] if rng.random() < 0.5 else order[j] + order[i] for i, j in pairs]
