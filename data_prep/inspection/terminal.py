"""Checks: `verify` (hashes of everything) and `inspect` (what the shards hold, on the terminal or as a page)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_prep.config import PrepConfig
from data_prep.inspection.excerpts import Excerpt, escaped_bytes, token_text, visible
from data_prep.inspection.page import write_page
from data_prep.inspection.statistics import Lengths
from data_prep.inspection.survey import ShardSurvey, Survey, source_rows, survey
from rlpt.data.manifest import check_shard, read_manifest, verify_shard
from rlpt.data.tokenizer import load_tokenizer

BOUNDARY = "\u2502"  # between tokens on the terminal
_MOST_TOKENS = 80  # of a document, on the terminal
_PAGE_TOKENS = 400
_FREQUENT = 20  # tokens that are named
_BAR = 40  # characters


def verify(config: PrepConfig, out: Path) -> None:
    """Raises DataError unless tokenizer and shards are the ones that the manifest names, to the byte."""
    tokenizer = load_tokenizer(out / "tokenizer")
    manifest = read_manifest(out)
    for name in manifest.shards:
        entry = check_shard(out / name, tokenizer.sha256, tokenizer.vocab_size)
        verify_shard(out / name, entry)
        print(f"verify: {out / name}: {entry.documents:,} documents, {entry.tokens:,} tokens: good")


def inspect(config: PrepConfig, out: Path) -> None:
    """Prints what the shards hold: counts, histograms, sources, some documents. Nothing that a text holds is sent to
    the terminal raw. Raises DataError where shards, manifest and tokenizer do not fit together."""
    found = survey(out, _MOST_TOKENS)
    _print_counts(found)
    _print_sources(found)
    _print_vocabulary(found)
    for shard in found.shards:
        _print_lengths(shard.name, shard.lengths)
    for shard in found.shards:
        _print_documents(shard)


def inspect_page(config: PrepConfig, out: Path, path: Path) -> Path:
    """Writes the same with plots as one HTML page that loads nothing, and returns its path. Raises DataError as
    `inspect`, and ConfigError where matplotlib is missing."""
    written = write_page(survey(out, _PAGE_TOKENS), path)
    print(f"inspect: wrote {written}")
    return written


def _print_counts(found: Survey) -> None:
    manifest = found.manifest
    print(
        f"{visible(str(found.folder))}: vocabulary {manifest.vocab_size:,}, "
        f"tokenizer {manifest.tokenizer_sha256[:12]}, seed {manifest.seed}"
    )
    width = max([len(shard.name) for shard in found.shards] + [len("shard")])
    print(
        f"{'shard':{width}} {'documents':>12} {'tokens':>14} {'bytes':>14} {'bytes/token':>12} {'tokens/word':>12} "
        f"{'median':>8} {'longest':>9} {'tokens used':>12}"
    )
    for shard in found.shards:
        entry, tokens = shard.entry, shard.tokens
        print(
            f"{shard.name:{width}} {entry.documents:>12,} {entry.tokens:>14,} {entry.utf8_bytes:>14,} "
            f"{entry.utf8_bytes / entry.tokens:>12.2f} {tokens.tokens_per_word:>12.2f} {shard.lengths.median:>8,} "
            f"{shard.lengths.longest:>9,} {tokens.num_used / manifest.vocab_size:>12.1%}"
            + (f"   (tokens of a sample of {tokens.tokens:,})" if tokens.is_sample else "")
        )


def _print_sources(found: Survey) -> None:
    for row in source_rows(found.sources):
        facts = [
            ("licence", row.licence),
            ("from", row.provenance),
            ("read", row.read),
            ("dropped", row.dropped),
            ("", row.others),
        ]
        print(f"\nsource {visible(row.name)}: " + "; ".join(f"{k} {visible(v)}".strip() for k, v in facts if v))


def _print_vocabulary(found: Survey) -> None:
    counts = found.counts
    total, used = int(counts.sum()), int((counts > 0).sum())
    order = np.argsort(-counts, kind="stable")[: min(_FREQUENT, used)].tolist()
    print(f"\nvocabulary: {used:,} of {len(counts):,} tokens occur, {len(counts) - used:,} never; most frequent:")
    shares = [f"'{token_text(found.tokenizer, token)}' {counts[token] / total:.1%}" for token in order]
    print("  " + "  ".join(shares))


def _print_lengths(name: str, lengths: Lengths) -> None:
    print(
        f"\n{name}: tokens a document: {lengths.shortest:,} to {lengths.longest:,}, mean {lengths.mean:,.1f}, median "
        f"{lengths.median:,}, 90 % up to {lengths.most:,}"
    )
    filled = np.flatnonzero(lengths.counts)
    most = int(lengths.counts.max())
    for at in range(int(filled[0]), int(filled[-1]) + 1):
        low, high, count = int(lengths.edges[at]), int(lengths.edges[at + 1]) - 1, int(lengths.counts[at])
        label = f"{low:,}" if low == high else f"{low:,}-{high:,}"
        print(f"{label:>22} {count:>12,} {'#' * -(-count * _BAR // most)}".rstrip())


def _print_documents(shard: ShardSurvey) -> None:
    print(f"\n{shard.name}: some documents, tokens parted by {BOUNDARY}")
    for one in shard.excerpts:
        left = f" ... {one.length - one.shown:,} more" if one.length > one.shown else ""
        print(f"  document {one.index:,}, {one.length:,} tokens: {shown_excerpt(one)}{left}")


def shown_excerpt(one: Excerpt) -> str:
    """An excerpt on one line: tokens apart, whatever is not printable as escapes, marks and the end of text by name."""
    return BOUNDARY.join(
        escaped_bytes(piece.data) if piece.kind == "bytes" else visible(piece.text, also=BOUNDARY)
        for piece in one.pieces
    )
