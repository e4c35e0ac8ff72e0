"""Everything that `inspect` shows of a prepared folder, gathered once for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.inspection.excerpts import Excerpt, chosen_documents, excerpt
from data_prep.inspection.statistics import Lengths, TokenCounts, TokenTable, count_lengths, count_tokens, token_table
from rlpt.data.indexed import open_shard
from rlpt.data.manifest import Manifest, ShardEntry, read_manifest
from rlpt.data.tokenizer import RunTokenizer, load_tokenizer


@dataclass(frozen=True)
class ShardSurvey:
    """One shard."""

    name: str
    entry: ShardEntry
    lengths: Lengths
    tokens: TokenCounts
    excerpts: tuple[Excerpt, ...]


@dataclass(frozen=True)
class Survey:
    """All shards of a folder."""

    folder: Path
    manifest: Manifest
    tokenizer: RunTokenizer
    table: TokenTable
    shards: tuple[ShardSurvey, ...]

    @property
    def counts(self) -> np.ndarray:
        """[V] int64: how often each token was read, over all shards."""
        return np.sum([shard.tokens.counts for shard in self.shards], axis=0)

    @property
    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """What the manifest says of each source: licence, provenance, documents read and dropped."""
        sources: Mapping[str, Mapping[str, Any]] = getattr(self.manifest, "sources", {})
        return sources

    @property
    def is_sample(self) -> bool:
        """Whether tokens were counted in parts of a shard only."""
        return any(shard.tokens.is_sample for shard in self.shards)


@dataclass(frozen=True)
class SourceRow:
    """What became of a source's documents, as text."""

    name: str
    licence: str
    provenance: str
    read: str
    dropped: str  # by reason, the most frequent one first
    others: str  # what else the manifest says


def survey(folder: Path, most_tokens: int) -> Survey:
    """Reads shards and tokenizer; `most_tokens` of each document that is shown. Raises DataError where shards, manifest
    and tokenizer do not fit together."""
    tokenizer = load_tokenizer(folder / "tokenizer")
    manifest, table = read_manifest(folder), token_table(tokenizer)
    shards = []
    for name, entry in manifest.shards.items():
        shard = open_shard(folder / name, tokenizer)
        chosen = chosen_documents(shard.num_documents, name, manifest.seed)
        shown = tuple(excerpt(shard, tokenizer, index, most_tokens) for index in chosen)
        shards.append(ShardSurvey(name, entry, count_lengths(shard.lengths), count_tokens(shard, table), shown))
    return Survey(folder, manifest, tokenizer, table, tuple(shards))


def source_rows(sources: Mapping[str, Mapping[str, Any]]) -> list[SourceRow]:
    """One a source, in the manifest's order."""
    rows = []
    for name, facts in sources.items():
        left = dict(facts)
        licence, provenance, read = (_plain(left.pop(key, "")) for key in ("licence", "provenance", "read"))
        dropped = _plain(left.pop("dropped", {})) or "none"
        rows.append(SourceRow(name, licence, provenance, read, dropped, _plain(left)))
    return rows


def _plain(value: Any) -> str:
    """A value of JSON in words; counts of a mapping with the largest first."""
    if isinstance(value, Mapping):
        items = [(key, inner) for key, inner in value.items() if inner not in ("", None, {}, [])]
        if all(isinstance(inner, int) for _, inner in items):
            items.sort(key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in items)
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
