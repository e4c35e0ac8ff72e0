"""Problems from corpus text: a context and what really follows it, cut at a position that a rule picks.

For reinforcement on pre-training text (RPT, 2506.08007; RLP, 2510.01265). Problem i is a function of (seed, i) and,
where positions are picked by entropy, of the snapshot that is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from rlpt.batch import SourceContext
from rlpt.data.blend import BlendEntry
from rlpt.data.corpus import ShardStream, pack_rows
from rlpt.data.indexed import open_shard
from rlpt.errors import ConfigError, DataError
from rlpt.selfplay.passage import PASSAGE
from rlpt.tasks.base import keyed_hash, train_seed
from rlpt.types import Problem

ATTEMPTS = 64  # rows that are looked at for one problem: with room in one row of four, a problem in 1e8 finds none


@dataclass(frozen=True)
class PassageOptions:
    """Where contexts come from and where they are cut.

    `positions`: random; every (each `every`-th token of a row); entropy (one of the `top_share` positions of the row
    with the highest entropy of the next token under the weights of `entropy_snapshot`, "": the training weights);
    after (right after the character `marker`).
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    blend: Annotated[list[BlendEntry], Field(min_length=1)]
    context: int = 64  # most tokens before the cut
    least_context: int = 1  # fewest
    future: int = 8  # tokens after the cut that come with the problem
    positions: Literal["random", "every", "entropy", "after"] = "random"
    every: int = 8
    top_share: float = 0.2
    entropy_snapshot: str = ""
    marker: str = ""

    def __post_init__(self) -> None:
        for key in ("context", "least_context", "future", "every"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key}={getattr(self, key)}: must be at least 1")
        if self.least_context > self.context:
            raise ValueError(f"least_context={self.least_context}: is above context={self.context}")
        if not 0 < self.top_share <= 1:
            raise ValueError(f"top_share={self.top_share}: must be above 0 and at most 1")
        if (self.positions == "after") != bool(self.marker):
            raise ValueError(
                f"positions={self.positions} with marker={self.marker!r}: `after` needs a marker, and only it"
            )


class Passages:
    """Draws passages from a blend of shards."""

    def __init__(self, options: PassageOptions, context: SourceContext, least_future: int = 1) -> None:
        """`least_future`: the fewest tokens that must stand after the cut. Raises DataError for a shard that can't be
        opened or is shorter than a row, ConfigError for a marker without one token and for a shorter `future`."""
        self.options, self.context, self.least_future = options, context, least_future
        self.tasks: Mapping[str, Any] = {}
        where = f"objectives.{context.objective}.source.passages"
        if options.future < least_future:
            raise ConfigError(f"{where}.future={options.future}: this form of self-play looks at {least_future} tokens")
        self.streams = [
            ShardStream(open_shard(entry.path, context.tokenizer), context.seed, context.sequence_length)
            for entry in options.blend
        ]
        weights = np.array([entry.weight for entry in options.blend])
        self._shares = np.cumsum(weights / weights.sum())
        self._marker = -1
        if options.marker:
            ids = context.tokenizer.encode_characters(options.marker)
            if len(ids) != 1:
                raise ConfigError(f"{where}.marker: {options.marker!r} is {len(ids)} tokens; give one character")
            self._marker = ids[0]

    def draw(self, indices: Iterable[int]) -> list[Problem]:
        """The passages with these numbers. Tensor-parallel ranks must call it together where entropy decides."""
        numbers = list(indices)
        found: dict[int, Problem] = {}
        for attempt in range(ATTEMPTS):
            missing = [index for index in numbers if index not in found]
            rows = [self._row(index, attempt) for index in missing]
            entropies = self._entropies(rows) if self.options.positions == "entropy" else [None] * len(rows)
            for index, row, entropy in zip(missing, rows, entropies, strict=True):
                problem = self._problem(index, *row, entropy)
                if problem is not None:
                    found[index] = problem
        if len(found) < len(numbers):
            raise DataError(
                f"objectives.{self.context.objective}.source.passages: {ATTEMPTS} rows in a turn hold no "
                f"document with {self.options.least_context} + {self.least_future} tokens; lower least_context"
            )
        return [found[index] for index in numbers]

    def _row(self, index: int, attempt: int) -> tuple[np.ndarray, np.ndarray]:
        """Row [T + 1] of token ids, and of document ordinals."""
        key = keyed_hash("passage", self.context.seed, index, attempt)
        shard = int(np.searchsorted(self._shares, (key % (1 << 32)) / (1 << 32), side="right"))
        stream = self.streams[min(shard, len(self.streams) - 1)]
        return stream.row(index if attempt == 0 else key % stream.rows_per_epoch)

    def _entropies(self, rows: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Of the token at each place of each row [T + 1], given those before it (0 for the first)."""
        assert self.context.score is not None
        found: list[np.ndarray] = []
        for start in range(0, len(rows), self.context.micro_batch_size):
            batch = pack_rows(rows[start : start + self.context.micro_batch_size], self.context.objective, "isolate")
            entropy = self.context.score(batch, self.options.entropy_snapshot).entropy.cpu().numpy()
            found += [np.concatenate([[0.0], row]) for row in entropy]
        return found

    def _problem(self, index: int, ids: np.ndarray, ordinals: np.ndarray, entropy: np.ndarray | None) -> Problem | None:
        options, tokenizer = self.options, self.context.tokenizer
        seed = train_seed(keyed_hash("passage", self.context.seed), index)
        places = np.arange(len(ids))
        first = np.searchsorted(ordinals, ordinals, side="left")  # where each place's document begins in the row
        last = np.searchsorted(ordinals, ordinals, side="right")  # and where it ends
        last = last - (ids[last - 1] == tokenizer.eos_id)
        is_open = (places - first >= options.least_context) & (places + self.least_future <= last)
        kept = self._by_rule(places[is_open], ids, entropy)
        if not len(kept):
            return None
        place = int(kept[keyed_hash("cut", seed) % len(kept)])
        begin = max(int(first[place]), place - options.context)
        context, future = ids[begin:place].tolist(), ids[place : min(place + options.future, last[place])].tolist()
        meta = {"context": tuple(context), "future": tuple(future)}
        return Problem(PASSAGE, seed, 0, tokenizer.decode(context), tokenizer.decode(future), meta)

    def _by_rule(self, places: np.ndarray, ids: np.ndarray, entropy: np.ndarray | None) -> np.ndarray:
        """Those of the open places that `positions` allows."""
        options = self.options
        if options.positions == "every":
            return places[places % options.every == 0]
        if options.positions == "after":
            return places[ids[places - 1] == self._marker]
        if entropy is None:
            return places
        most = max(1, round(options.top_share * len(places)))
        return np.sort(places[np.argsort(-entropy[places], kind="stable")[:most]])

    def record(self, plays: Iterable[tuple[str, int, float]]) -> None:
        """Nothing to move on."""

    def metrics(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the number of problems drawn says where it stands."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""
