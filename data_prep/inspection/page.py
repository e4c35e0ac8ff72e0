"""The inspection as one HTML page that loads nothing and runs nothing. All that comes from data is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import yaml

from data_prep.inspection.excerpts import Excerpt, Piece, escaped_bytes, token_text, visible
from data_prep.inspection.page_plots import frequency_plot, length_plot
from data_prep.inspection.page_style import COLOURS, stylesheet
from data_prep.inspection.statistics import LIMIT, STRETCH
from data_prep.inspection.survey import ShardSurvey, Survey, source_rows
from rlpt.data.manifest import atomic_writer
from rlpt.template import SPECIAL_TOKENS

_FREQUENT = 100  # tokens that are named
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_SECTIONS = ("Shards", "Sources", "Lengths and frequencies", "Vocabulary", "Documents", "Configuration")


def write_page(found: Survey, path: Path) -> Path:
    """Writes the page in one piece and returns its path. Raises ConfigError where matplotlib is missing."""
    text = inspection_page(found)
    with atomic_writer(Path(path)) as file:
        file.write(text.encode("utf-8"))
    return Path(path)


def inspection_page(found: Survey) -> str:
    """The whole page, the same bytes for the same folder. Plots show the largest shards, as many as have colours."""
    order = sorted(found.shards, key=lambda shard: -shard.entry.tokens)[: len(COLOURS)]
    colours = {shard.name: f"--hue: var(--c{index})" for index, shard in enumerate(order)}
    bodies = (
        _shards(found, colours),
        _sources(found),
        _plots(order, len(found.shards)),
        _vocabulary(found),
        "".join(_documents(shard, colours) for shard in found.shards),
        f"<details><summary>as the manifest holds it</summary><pre>{_text(_configuration(found))}</pre></details>",
    )
    links = "".join(f'<a href="#s{number}">{title}</a>' for number, title in enumerate(_SECTIONS))
    sections = "".join(
        f'<section id="s{number}"><h2>{title}</h2>{body}</section>'
        for number, (title, body) in enumerate(zip(_SECTIONS, bodies, strict=True))
    )
    title = f"Corpus {_text(found.folder.name)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{stylesheet()}</style></head><body><h1>{title}</h1><nav>{links}</nav>{_facts(found)}{sections}"
        "</body></html>\n"
    )


def _facts(found: Survey) -> str:
    entries = [shard.entry for shard in found.shards]
    tokens, size = sum(e.tokens for e in entries), sum(e.utf8_bytes for e in entries)
    facts = [
        (f"{sum(e.documents for e in entries):,}", "documents"),
        (f"{tokens:,}", "tokens"),
        (f"{size:,}", "bytes of text"),
        (f"{size / max(tokens, 1):.2f}", "bytes a token"),
        (f"{found.manifest.vocab_size:,}", "tokens in the vocabulary"),
        (found.manifest.tokenizer_sha256[:12], "tokenizer's SHA-256"),
        (str(found.manifest.seed), "seed"),
    ]
    return f"<div class=facts>{''.join(f'<div><b>{_text(v)}</b><span>{k}</span></div>' for v, k in facts)}</div>"


def _shards(found: Survey, colours: dict[str, str]) -> str:
    head = ("shard", "documents", "tokens", "bytes", "bytes/token", "tokens/word", "median", "90 %", "longest", "used")
    rows = []
    for shard in found.shards:
        entry, lengths, used = shard.entry, shard.lengths, shard.tokens.num_used / found.manifest.vocab_size
        name = f'<span class=dot style="{colours.get(shard.name, "")}"></span>{_text(shard.name)}'
        counts = [f"{n:,}" for n in (entry.documents, entry.tokens, entry.utf8_bytes)]
        ratios = [f"{entry.utf8_bytes / entry.tokens:.2f}", f"{shard.tokens.tokens_per_word:.2f}"]
        spread = [f"{n:,}" for n in (lengths.median, lengths.most, lengths.longest)]
        rows.append([name, *counts, *ratios, *spread, f"{used:.1%}"])
    sampled = [
        f"{shard.name} ({shard.tokens.tokens:,} of {shard.entry.tokens:,})"
        for shard in found.shards
        if shard.tokens.is_sample
    ]
    sample = (
        f" Tokens and words were counted in stretches of {STRETCH:,} tokens, evenly spread, of shards with more than "
        f"{LIMIT:,} tokens: {_text(', '.join(sampled))}."
        if sampled
        else " Every token was counted."
    )
    return (
        f"<div class=card>{_table(head, rows)}</div><p class=note>Median, 90 % and longest are tokens a document, the "
        "end of text included; used is the share of the vocabulary that occurs; words are what white space and "
        f"marks part.{sample}</p>"
    )


def _sources(found: Survey) -> str:
    rows = source_rows(found.sources)
    if not rows:
        return "<p class=note>The manifest says nothing about sources.</p>"
    head = ("source", "licence", "from", "documents read", "dropped, by reason", "more")
    cells = [[_text(c) for c in (r.name, r.licence, r.provenance, r.read, r.dropped, r.others)] for r in rows]
    return f"<div class='card words'>{_table(head, cells)}</div>"


def _plots(order: Sequence[ShardSurvey], count: int) -> str:
    if not order:
        return "<p class=note>There are no shards.</p>"
    names = "".join(
        f'<span><span class=dot style="--hue: var(--c{index})"></span>{_text(shard.name)}</span>'
        for index, shard in enumerate(order)
    )
    left = f"<p class=note>The {len(order)} largest of {count} shards.</p>" if count > len(order) else ""
    figures = (
        ("Length of documents", "share of a shard's documents", length_plot([s.lengths for s in order])),
        ("Frequency of tokens", "share of a shard's tokens, by rank", frequency_plot([s.tokens.counts for s in order])),
    )
    plots = "".join(
        f"<figure class=card><figcaption>{title} <span>{unit}</span></figcaption>{svg}</figure>"
        for title, unit, svg in figures
    )
    return f"<nav>{names}</nav>{left}<div class=plots>{plots}</div>"


def _vocabulary(found: Survey) -> str:
    counts, tokenizer = found.counts, found.tokenizer
    total, used = int(counts.sum()), int((counts > 0).sum())
    order = np.argsort(-counts, kind="stable")[: min(_FREQUENT, used)].tolist()
    frequent = "".join(
        f"<span>{_named(token_text(tokenizer, token))} <i>{counts[token] / total:.2%}</i></span>" for token in order
    )
    longest = np.argsort(-found.table.num_bytes, kind="stable")[:20].tolist()
    names = "".join(f"<span>{_named(token_text(tokenizer, token))}</span>" for token in longest)
    lone = sum(int(counts[token]) for token in _byte_tokens(found))
    marks = ", ".join(f"{mark} {tokenizer.mark_id(mark)}" for mark in SPECIAL_TOKENS)
    return (
        f"<p>{used:,} of {len(counts):,} tokens ({used / len(counts):.1%}) occur among the {total:,} that were "
        f"counted, {len(counts) - used:,} never do. {lone / max(total, 1):.2%} are parts of a "
        f"character. Marks: {_text(marks)}; end of text {tokenizer.eos_id}, padding {tokenizer.pad_id}.</p>"
        f"<h3>Most frequent</h3><div class='card tokens'>{frequent}</div>"
        f"<h3>Longest</h3><div class='card tokens'>{names}</div>"
    )


def _byte_tokens(found: Survey) -> Iterable[int]:
    """Tokens that are no UTF-8 by themselves."""
    for token in np.flatnonzero(found.counts).tolist():
        try:
            found.tokenizer.decode_bytes([token]).decode("utf-8")
        except UnicodeDecodeError:
            yield token


def _documents(shard: ShardSurvey, colours: dict[str, str]) -> str:
    parts = []
    for one in shard.excerpts:
        more = f"<span class=n> ... {one.length - one.shown:,} more tokens</span>" if one.length > one.shown else ""
        label = f"document {one.index:,} of {shard.entry.documents:,}, {one.length:,} tokens"
        parts.append(f"<div class=label>{label}</div><pre>{_pieces(one)}{more}</pre>")
    dot = f'<span class=dot style="{colours.get(shard.name, "")}"></span>'
    return f"<details open><summary>{dot}{_text(shard.name)}</summary>{''.join(parts)}</details>"


def _pieces(one: Excerpt) -> str:
    return "".join(f"<span class=t>{_piece(piece)}</span>" for piece in one.pieces)


def _piece(piece: Piece) -> str:
    """A token's text, with line ends shown and kept and escapes told apart from the text."""
    if piece.kind in ("mark", "end", "silent"):
        return f"<span class=m>{_text(piece.text)}</span>"
    if piece.kind == "bytes":
        return f"<span class=e>{escaped_bytes(piece.data)}</span>"
    return "".join(_character(character) for character in piece.text)


def _character(character: str) -> str:
    if character == "\n":
        return "<span class=n>\u21b5</span>\n"
    if character == "\t":
        return "<span class=n>\u2192</span>\t"
    return escape(character) if character.isprintable() else f"<span class=e>{escape(visible(character))}</span>"


def _named(text: str) -> str:
    """A token in a list: its spaces can be seen."""
    return f"<code>{_text(text).replace(' ', '&#x2423;')}</code>"


def _configuration(found: Survey) -> str:
    return yaml.safe_dump(dict(found.manifest.config), sort_keys=False, allow_unicode=False)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML."""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table>"


def _text(text: str) -> str:
    """Escaped; nothing unprintable but line ends."""
    return escape("".join(c if c.isprintable() or c == "\n" else visible(c) for c in text))
