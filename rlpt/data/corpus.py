"""The corpus source: a weighted blend of shards as packed rows, a pure function of (seed, shard, row index).

In every epoch a shard's documents are laid end to end in an order keyed by (seed, shard content, epoch) and cut into
rows: row r holds tokens rT .. rT + T, so neighbouring rows share one token and every token is a label once (but for
the last few, which fill no row). The rows are then given out in a keyed order too, so that a microbatch is not one
long document. The only state is how many rows each shard has given and should have given by its shares so far
(`blend.py`), counted over all data-parallel ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from rlpt.batch import Batch, SourceContext
from rlpt.data.blend import BlendCounter, BlendOptions
from rlpt.data.epochs import plan_blend, remarks, rows_an_epoch
from rlpt.data.indexed import Shard, open_shard
from rlpt.errors import CheckpointError
from rlpt.registry import register

Boundaries = Literal["isolate", "ignore"]


@register("source", "corpus")
@dataclass(frozen=True)
class CorpusOptions(BlendOptions):
    """Options of `source: {name: corpus}`, with those of `BlendOptions`.

    `boundaries`: `isolate` keeps documents of a row apart (no attention and no label across them, positions restart);
    `ignore` treats a row as one text, as GPT pre-training usually does.
    """

    boundaries: Boundaries = "isolate"

    def open(self, context: SourceContext) -> CorpusSource:
        """Opens and checks every shard. Raises DataError."""
        return CorpusSource(self, context)


class ShardStream:
    """The rows of one shard, epoch after epoch, each epoch shuffled by its key."""

    def __init__(self, shard: Shard, seed: int, sequence_length: int) -> None:
        """Raises DataError when the shard has fewer than `sequence_length` + 1 tokens."""
        self.shard, self.seed, self.sequence_length = shard, seed, sequence_length
        self.rows_per_epoch = rows_an_epoch(shard.prefix, shard.num_tokens, sequence_length)
        self._epoch = -1
        self._documents = self._ends = self._rows = np.zeros(0, dtype=np.int64)  # of that epoch; see _open_epoch

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Row `index`: token ids [T + 1] int64, and the place of each one's document in the epoch [T + 1] int64."""
        epoch, turn = divmod(index, self.rows_per_epoch)
        self._open_epoch(epoch)
        tokens, ordinals = [], []
        position, wanted = int(self._rows[turn]) * self.sequence_length, self.sequence_length + 1
        while wanted:
            ordinal = int(np.searchsorted(self._ends, position, side="right"))
            document = int(self._documents[ordinal])
            length = int(self.shard.lengths[document])
            start = position - (int(self._ends[ordinal]) - length)
            taken = min(length - start, wanted)
            tokens.append(self.shard.document(document, start, start + taken))
            ordinals.append(np.full(taken, ordinal, dtype=np.int64))
            position, wanted = position + taken, wanted - taken
        return np.concatenate(tokens), np.concatenate(ordinals)

    def _open_epoch(self, epoch: int) -> None:
        """Makes the order of documents [D], where each ends [D], and the order of rows [R] of `epoch`."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._documents = self._permutation(epoch, "documents", self.shard.num_documents)
            self._ends = np.cumsum(self.shard.lengths[self._documents])
            self._rows = self._permutation(epoch, "rows", self.rows_per_epoch)

    def _permutation(self, epoch: int, use: str, size: int) -> np.ndarray:
        text = f"{self.seed}\x1f{self.shard.entry.bin_sha256}\x1f{epoch}\x1f{use}"
        key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
        return np.argsort(np.random.Philox(key=key).random_raw(size), kind="stable")


class CorpusSource:
    """A `BatchSource` of next-token rows. The order of rows does not depend on the data-parallel size."""

    def __init__(self, options: CorpusOptions, context: SourceContext) -> None:
        self._options, self._context, self._boundaries = options, context, options.boundaries
        self._streams = {
            entry.label: ShardStream(open_shard(entry.path, context.tokenizer), context.seed, context.sequence_length)
            for entry in options.blend
        }
        assert context.run_steps or not options.phases, "phases need the run's number of steps"
        self._schedule = options.schedule(self._tokens(), context.run_steps)
        self._counter = BlendCounter(self._schedule.at(0))
        self._changing = [len(set(shares)) > 1 for shares in zip(*self._schedule.shares, strict=True)]

    def prepare(self) -> list[str]:
        """What the whole run reads of each shard, as lines to print, and what to be warned of."""
        context = self._context
        plans = plan_blend(
            self._options,
            self._tokens(),
            context.sequence_length,
            lambda step: context.microbatches_at(step) * context.micro_batch_size,
            context.run_steps,
        )
        lines = []
        for label, tokens, first, last, rows, epochs in (plan.cells() for plan in plans):
            share = first if first == last else f"{first} to {last}"
            lines.append(f"{label}: {tokens} tokens, {share} of rows, {rows} rows, {epochs} epochs")
        return lines + remarks(self._options, plans, context.run_steps)

    def take(self, n: int, step: int = 0, share: float = 1.0) -> list[Batch]:
        """`n` microbatches [B, T] of this rank: global row ((m * ranks + rank) * B + b) from the counters on, in the
        shares of `step`. A corpus has no use for `share`."""
        size, rank = self._context.micro_batch_size, self._context.data_rank
        streams = list(self._streams.values())
        batches, rows = [], []
        self._counter.move_to(self._schedule.at(step))
        for block in range(n * self._context.data_size):
            mine = block % self._context.data_size == rank
            for _ in range(size):
                chosen = self._counter.next()
                if mine:
                    rows.append(streams[chosen].row(self._counter.counts[chosen] - 1))
            if mine:
                batches.append(pack_rows(rows, self._context.objective, self._boundaries))
                rows = []
        return batches

    def metrics(self) -> dict[str, float]:
        """`epoch/SHARD`: how often the shard's tokens have been seen, over all ranks; `share/SHARD`: its share of the
        last step's rows, where phases change it."""
        epochs = {
            f"epoch/{label}": count / stream.rows_per_epoch
            for (label, stream), count in zip(self._streams.items(), self._counter.counts, strict=True)
        }
        columns = zip(self._streams, self._counter.shares, self._changing, strict=True)
        return epochs | {f"share/{label}": share for label, share, changes in columns if changes}

    def state_dict(self) -> dict[str, Any]:
        """Rows given by each shard and due from it, with what must be unchanged for them to mean the same."""
        counter = self._counter
        columns = zip(self._streams.items(), counter.counts, counter.due, counter.shares, strict=True)
        shards = {
            label: {"sha256": stream.shard.entry.bin_sha256, "rows": count, "due": due, "share": share}
            for (label, stream), count, due, share in columns
        }
        context = self._context
        return {
            "seed": context.seed,
            "sequence_length": context.sequence_length,
            "since": counter.since,
            "shards": shards,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was taken; where weights or phases are others now, they count from here. Raises
        CheckpointError when seed, row length, the blend's shards or one's content differ."""
        current = self.state_dict()
        where = f"objectives.{self._context.objective}.source"
        for key in ("seed", "sequence_length"):
            if state[key] != current[key]:
                raise CheckpointError(
                    f"{where}: the checkpoint's {key} is {state[key]}, this run's is {current[key]}; resume with the "
                    "same, or start a new run (name or run_dir)"
                )
        if set(state["shards"]) != set(current["shards"]):
            raise CheckpointError(
                f"{where}.blend: the checkpoint read {', '.join(sorted(state['shards']))}, this run reads "
                f"{', '.join(sorted(current['shards']))}; resume with the same blend, or start a new run"
            )
        for label, entry in state["shards"].items():
            if entry["sha256"] != current["shards"][label]["sha256"]:
                raise CheckpointError(
                    f"{where}.blend: shard {label} has changed since the checkpoint; restore it, or start a new run"
                )
        shards, counter = [state["shards"][label] for label in self._streams], self._counter
        counter.counts = [int(shard["rows"]) for shard in shards]
        if "since" in state:
            counter.due, counter.since = [shard["due"] for shard in shards], state["since"]
            counter.shares = [shard["share"] for shard in shards]
        elif self._options.phases:  # a checkpoint from before there were any: nothing of the past is owed
            counter.due, counter.since = [float(count) for count in counter.counts], sum(counter.counts)

    def cursor(self) -> dict[str, Any]:
        """See `BatchSource`."""
        return self.state_dict()

    def _tokens(self) -> list[int]:
        return [stream.shard.num_tokens for stream in self._streams.values()]


def pack_rows(rows: Sequence[tuple[np.ndarray, np.ndarray]], objective: str, boundaries: Boundaries) -> Batch:
    """Rows of (token ids [T + 1], document ordinals [T + 1], -1 for padding) -> a Batch [B, T]."""
    tokens = np.stack([row[0] for row in rows])
    ordinals = np.stack([row[1] for row in rows])
    if boundaries == "ignore":
        ordinals = np.minimum(ordinals, 0)
    here, after = ordinals[:, :-1], ordinals[:, 1:]
    starts = np.concatenate([np.ones_like(here[:, :1], dtype=bool), here[:, 1:] != here[:, :-1]], axis=1)
    columns = np.broadcast_to(np.arange(here.shape[1]), here.shape)
    begins = np.maximum.accumulate(np.where(starts, columns, 0), axis=1)
    segments = np.where(here >= 0, np.cumsum(starts, axis=1) - 1, -1)
    return Batch(
        objective=objective,
        tokens=torch.from_numpy(tokens[:, :-1].copy()),
        labels=torch.from_numpy(tokens[:, 1:].copy()),
        positions=torch.from_numpy(columns - begins),
        loss_mask=torch.from_numpy((here == after) & (here >= 0)),
        segments=torch.from_numpy(segments),
    )


def held_out_batches(
    prefixes: Sequence[Path],
    tokenizer: Any,
    sequence_length: int,
    micro_batch_size: int,
    max_tokens: int,
    objective: str = "text",
    data_rank: int = 0,
    data_size: int = 1,
    boundaries: Boundaries = "isolate",
) -> list[Batch]:
    """One pass over held-out shards in file order, the same rows at any data-parallel size.

    Rows overlap by one token as in training; a shard's last row, and rows that fill up the last microbatches (every
    rank gets as many), are padded and masked. Each shard gives at most `max_tokens` / number of shards tokens, in rows
    spread evenly over it.
    """
    rows: list[tuple[Shard, int]] = []
    for prefix in prefixes:
        shard = open_shard(prefix, tokenizer)
        available = -(-max(shard.num_tokens - 1, 1) // sequence_length)
        wanted = min(available, max(1, max_tokens // len(prefixes) // sequence_length))
        rows += [(shard, index * available // wanted) for index in range(wanted)]
    empty = (np.full(sequence_length + 1, tokenizer.pad_id), np.full(sequence_length + 1, -1))
    batches = []
    per_round = micro_batch_size * data_size
    for start in range(data_rank * micro_batch_size, -(-len(rows) // per_round) * per_round, per_round):
        chosen = rows[start : start + micro_batch_size]
        read = [_file_row(shard, index, sequence_length, tokenizer.pad_id) for shard, index in chosen]
        batches.append(pack_rows(read + [empty] * (micro_batch_size - len(read)), objective, boundaries))
    return batches


def _file_row(shard: Shard, index: int, sequence_length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Row `index` of a shard in file order, padded at the shard's end: ids [T + 1], document ordinals [T + 1]."""
    tokens = np.full(sequence_length + 1, pad_id, dtype=np.int64)
    ordinals = np.full(sequence_length + 1, -1, dtype=np.int64)
    ends = shard.ends
    position, filled = index * sequence_length, 0
    document = int(np.searchsorted(ends, position, side="right"))
    while filled <= sequence_length and document < shard.num_documents:
        length = int(shard.lengths[document])
        start = max(0, position - (int(ends[document]) - length))
        taken = min(length - start, sequence_length + 1 - filled)
        tokens[filled : filled + taken] = shard.document(document, start, start + taken)
        ordinals[filled : filled + taken] = document
        filled, document = filled + taken, document + 1
    return tokens, ordinals


def token_counts(prefixes: Sequence[Path], tokenizer: Any) -> np.ndarray:
    """How often each token is in the shards: [V] int64."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    for prefix in prefixes:
        for chunk in open_shard(prefix, tokenizer).chunks():
            counts += np.bincount(chunk, minlength=tokenizer.vocab_size)
    return counts
