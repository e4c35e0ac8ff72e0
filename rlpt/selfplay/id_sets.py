"""Sequences of id sets as JSON: each distinct set once, and which one stands where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def encoded(sequence: Sequence[np.ndarray | None] | None) -> dict[str, Any] | None:
    """JSON-able and exact; None stays None, in the sequence and in its place."""
    if sequence is None:
        return None
    sets: dict[bytes, int] = {}
    index = [-1 if ids is None else sets.setdefault(np.asarray(ids, np.int64).tobytes(), len(sets)) for ids in sequence]
    return {"sets": [np.frombuffer(one, np.int64).tolist() for one in sets], "index": index}


def decoded(state: Mapping[str, Any] | None) -> tuple[np.ndarray | None, ...] | None:
    """What `encoded` was given; places with the same set share one array."""
    if state is None:
        return None
    sets = [np.array(ids, np.int64) for ids in state["sets"]]
    return tuple(None if index < 0 else sets[index] for index in state["index"])
