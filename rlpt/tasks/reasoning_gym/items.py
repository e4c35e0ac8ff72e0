"""Items of reasoning-gym's data sets by (data set, level, seed), and what their verifiers say. In the worker only.

A level is a number of increments of the data set's own curriculum, starting with all its attributes at their lowest:
each increment raises the next attribute, in the curriculum's order and round, that can be raised and leaves a valid
configuration. Data sets whose curriculum can't be used have settings of ours (`SETTINGS`), the rest their defaults.

An item is the only one (index 0, size 1) of a data set of its own seed; data sets that read their seed only when the
item is made share one object a level, since some read word lists for 0.5 s when they are built. Python's and numpy's
global generators are seeded for each item, because some data sets draw from them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from reasoning_gym.factory import create_curriculum, create_dataset

# Measured: the package's curriculum of sokoban has items that take minutes at every level, that of number_sequence from
# level 1 on; that of knight_swap is invalid throughout; rubiks_cube's verifier can't read the moves of larger cubes.
SETTINGS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "sokoban": tuple(
        {"min_w": 6, "max_w": side, "min_h": 6, "max_h": side, "min_boxes": boxes, "max_boxes": boxes}
        for side, boxes in ((6, 1), (6, 2), (6, 3), (6, 4), (7, 3), (7, 4), (8, 3))
    ),
    "knight_swap": tuple(
        {"min_nodes": 8, "max_nodes": 9, "min_pieces": 1, "max_pieces": 1, "min_steps": least, "max_steps": most}
        | {"impossible_ratio": 0.0}
        for least, most in ((1, 10), (6, 20))
    ),
    "rubiks_cube": tuple(
        {"cube_size": 3, "min_scramble_steps": least, "max_scramble_steps": most}
        for least, most in ((1, 1), (2, 2), (3, 3), (4, 5), (6, 8), (9, 15), (16, 25))
    ),
    "number_sequence": tuple(
        {"max_complexity": complexity, "min_value": -size, "max_value": size}
        for complexity, size in ((1, 100), (2, 100), (2, 1000), (4, 10_000))
    ),
}
NO_CURRICULUM = frozenset({"acre", "gsm_symbolic", "list_functions"})


def inverse_moves(entry: Mapping[str, Any]) -> str:
    """The moves that undo a scrambled cube's: backwards, each turned the other way."""
    moves = entry["metadata"]["scramble_moves"].split()
    return " ".join(move[:-1] if move.endswith("'") else f"{move}'" for move in reversed(moves))


# Right answers of data sets that give none with their items.
ORACLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "graph_color": lambda entry: json.dumps(entry["metadata"]["possible_answer"]),
    "rubiks_cube": inverse_moves,
}


class Refused(Exception):
    """The package makes no usable item of this seed; another seed has one."""


def settings(name: str, level: int) -> dict[str, Any]:
    """Arguments of the data set's configuration at a level; those of the last level above it."""
    if name in SETTINGS:
        return dict(SETTINGS[name][min(level, len(SETTINGS[name]) - 1)])
    if name in NO_CURRICULUM:
        return {}
    curriculum = create_curriculum(name)
    attributes, at = list(curriculum.attributes), 0
    for attribute in attributes:
        curriculum.set_attr_level(attribute, 0)
    for _ in range(level):
        for step in range(len(attributes)):
            attribute = attributes[(at + step) % len(attributes)]
            before = curriculum.get_attr_level(attribute)
            if curriculum.increment_attr_level(attribute):
                if _is_valid(curriculum):
                    at = (at + step + 1) % len(attributes)
                    break
                curriculum.set_attr_level(attribute, before)
    return {
        key: value
        for key, value in vars(curriculum.generate_configuration({"size": 1, "seed": 0})).items()
        if key not in ("size", "seed")
    }


def _is_valid(curriculum: Any) -> bool:
    configuration = curriculum.generate_configuration({"size": 1, "seed": 0})
    try:
        getattr(configuration, "validate", lambda: None)()
    except AssertionError:
        return False
    return True


@lru_cache(maxsize=64)
def _shared(name: str, level: int) -> Any:
    return create_dataset(name, seed=0, size=1, **settings(name, level))


@lru_cache(maxsize=256)
def item(name: str, level: int, seed: int) -> tuple[Any, dict[str, Any]]:
    """(data set, entry) of (name, level, seed), with a right answer in the entry. Raises Refused."""
    if name in NO_CURRICULUM:
        data_set = create_dataset(name, seed=seed, size=1)
    else:
        data_set = _shared(name, level)
        data_set.seed = data_set.config.seed = seed
    random.seed(seed)
    np.random.seed(seed)
    try:
        entry = data_set[0]
    except (ValueError, RuntimeError) as error:  # an upstream search gave up
        raise Refused(str(error)) from error
    if name in ORACLES:
        entry["answer"] = ORACLES[name](entry)
    if not isinstance(entry["answer"], str) or not entry["answer"]:
        raise Refused("no answer")
    if data_set.score_answer(entry["answer"], entry) != 1:
        raise Refused("its own answer is not scored 1")
    return data_set, entry
