"""What stands in a row: views of trajectories, those that begin alike behind one stem.

A view is a stretch of a trajectory as the policy saw it: the whole of it, or, for one that was played through a window,
one view for each place where the window began. The samples of a prompt are a tree: the prompt once, and each sample's
own tokens as a branch that attends to it. The prompt's last token begins every branch, so that each position has one
label: the first token of every sample is predicted in its own branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rlpt.errors import ConfigError
from rlpt.types import Trajectory


@dataclass(frozen=True)
class View:
    """Tokens [start, stop) of a trajectory; those before `fresh` are context here, whatever the policy chose there."""

    trajectory: Trajectory
    start: int
    fresh: int
    stop: int

    @property
    def size(self) -> int:
        """Positions: the last token is only a label."""
        return self.stop - self.start - 1

    @cached_property
    def actions(self) -> np.ndarray:
        """[size] bool: which of its labels, the tokens after `start`, count here."""
        actions = self.trajectory.action_mask[self.start + 1 : self.stop].copy()
        actions[: max(0, self.fresh - self.start - 1)] = False
        return actions

    @cached_property
    def stem(self) -> int:
        """How many of its first positions have no label that counts; 0 where none counts."""
        return int(self.actions.argmax()) if len(self.actions) else 0


def views(trajectory: Trajectory) -> list[View]:
    """What the policy saw when it chose: together the views hold each action once as fresh."""
    windows = trajectory.windows or ((0, len(trajectory.token_ids)),)
    fresh = [0, *(stop for _, stop in windows)]
    return [View(trajectory, start, begin, stop) for begin, (start, stop) in zip(fresh, windows)]


@dataclass(frozen=True)
class Tree:
    """Views whose first `stem` positions are the same tokens; 0: a view alone."""

    views: tuple[View, ...]
    stem: int = 0

    @property
    def size(self) -> int:
        """Positions."""
        return self.stem + sum(view.size - self.stem for view in self.views)


@dataclass(frozen=True)
class Place:
    """Where a part of a view stands: its positions [begin, begin + length) in the row's columns from `column` on."""

    view: View
    begin: int
    length: int
    column: int
    segment: int
    parent: int  # segment, -1: none

    @property
    def is_stem(self) -> bool:
        """Whether its labels are left to the branches."""
        return self.parent < 0 and self.length < self.view.size


def places(trees: Sequence[Tree]) -> Iterator[Place]:
    """Every part of a row, in order."""
    column = segment = 0
    for tree in trees:
        parent = -1
        if tree.stem:
            yield Place(tree.views[0], 0, tree.stem, column, segment, -1)
            parent, column, segment = segment, column + tree.stem, segment + 1
        for view in tree.views:
            yield Place(view, tree.stem, view.size - tree.stem, column, segment, parent)
            column, segment = column + view.size - tree.stem, segment + 1


def arrange(trajectories: Sequence[Trajectory], capacity: int, share_prompt: bool = True) -> list[Tree]:
    """All views, those of peers with the same first tokens in one tree as far as it has at most `capacity` positions.

    Others stay apart even where they begin alike: what is computed then does not hang on which ranks play what.

    Raises ConfigError for a view that has more of its own.
    """
    alike: dict[tuple[int, bytes] | int, list[View]] = {}
    for index, view in enumerate(view for trajectory in trajectories for view in views(trajectory)):
        if view.size > capacity:
            raise ConfigError(
                f"an episode of {view.size + 1} tokens does not fit batch.sequence_length={capacity}; "
                "raise it, lower the task's level, or play through a shorter window"
            )
        stem = view.trajectory.token_ids[view.start : view.start + view.stem]
        key = (view.trajectory.peers, stem.tobytes()) if share_prompt and len(stem) else index
        alike.setdefault(key, []).append(view)
    return [tree for group in alike.values() for tree in _grown(group, capacity)]


def _grown(group: Sequence[View], capacity: int) -> list[Tree]:
    """Views of one stem, the longest first, each in the fullest tree that it fits."""
    stem = group[0].stem
    if len(group) == 1:
        return [Tree((group[0],))]
    parts: list[list[View]] = []
    room: list[int] = []
    for view in sorted(group, key=lambda one: -one.size):
        own = view.size - stem
        fitting = [part for part in range(len(parts)) if room[part] >= own]
        if fitting:
            best = min(fitting, key=room.__getitem__)
        else:
            best = len(parts)
            parts.append([])
            room.append(capacity - stem)
        parts[best].append(view)
        room[best] -= own
    return [Tree(tuple(part), stem if len(part) > 1 else 0) for part in parts]


def share_out(trees: Sequence[Tree], parts: int) -> list[list[Tree]]:
    """`parts` lists of as nearly as can be the same number of positions: the largest tree first, to the shortest list
    (Graham 1969)."""
    shares: list[list[Tree]] = [[] for _ in range(parts)]
    sizes = [0] * parts
    for tree in sorted(trees, key=lambda one: -one.size):
        least = sizes.index(min(sizes))
        shares[least].append(tree)
        sizes[least] += tree.size
    return shares
