"""Decoded documents with their token boundaries, and text of any origin made fit to be shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rlpt.data.indexed import Shard
from rlpt.data.tokenizer import RunTokenizer
from rlpt.tasks.base import keyed_hash
from rlpt.template import SPECIAL_TOKENS

END_OF_TEXT = "<end of text>"
PieceKind = Literal["text", "bytes", "mark", "end", "silent"]
_LONGEST_CHARACTER = 4  # bytes in UTF-8


@dataclass(frozen=True)
class Piece:
    """A token; or several that make up one character between them."""

    ids: tuple[int, ...]
    kind: PieceKind
    data: bytes  # for `bytes`: what is no UTF-8 by itself
    text: str


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a document."""

    index: int  # of the document in its shard, from 0
    pieces: tuple[Piece, ...]
    length: int  # tokens of the whole document
    shown: int  # tokens that `pieces` stand for


def chosen_documents(count: int, name: str, seed: int, wanted: int = 5) -> list[int]:
    """Ascending indices below `count`: the first, the last, and one out of each of `wanted` - 2 equal parts, keyed."""
    parts = wanted - 2
    inner = {
        (part * count + keyed_hash("inspect", seed, name, part) % max(count, 1)) // parts
        for part in range(parts)
        if count
    }
    return sorted({0, count - 1} | inner) if count else []


def excerpt(shard: Shard, tokenizer: RunTokenizer, index: int, most: int) -> Excerpt:
    """The first `most` tokens of a document."""
    length = int(shard.lengths[index])
    ids = shard.document(index, 0, min(length, most)).tolist()
    return Excerpt(index, tuple(pieces_of(tokenizer, ids)), length, len(ids))


def pieces_of(tokenizer: RunTokenizer, ids: Sequence[int]) -> Iterator[Piece]:
    """The tokens one by one; those that hold parts of one character together, and lone bytes as such."""
    names = {tokenizer.mark_id(mark): mark for mark in SPECIAL_TOKENS}
    at = 0
    while at < len(ids):
        token = ids[at]
        data, width = tokenizer.decode_bytes([token]), 1
        if token in names:
            yield Piece((token,), "mark", b"", names[token])
        elif token == tokenizer.eos_id:
            yield Piece((token,), "end", b"", END_OF_TEXT)
        elif not data:
            yield Piece((token,), "silent", b"", f"<token {token}>")
        else:
            width, text = _character(tokenizer, ids, at)
            kind: PieceKind = "bytes" if text is None else "text"
            yield Piece(tuple(ids[at : at + width]), kind, data, text or "")
        at += width


def _character(tokenizer: RunTokenizer, ids: Sequence[int], at: int) -> tuple[int, str | None]:
    """How many tokens from `at` on make up whole characters, and their text; (1, None) where none do."""
    data = b""
    for width, token in enumerate(ids[at : at + _LONGEST_CHARACTER], 1):
        more = tokenizer.decode_bytes([token])
        if not more:  # a mark: no character goes on behind it
            break
        data += more
        try:
            return width, data.decode("utf-8")
        except UnicodeDecodeError:
            continue
    return 1, None


def token_text(tokenizer: RunTokenizer, token: int) -> str:
    """A token's name in a table, fit to be shown."""
    piece = next(pieces_of(tokenizer, [token]))
    return escaped_bytes(piece.data) if piece.kind == "bytes" else visible(piece.text)


def visible(text: str, also: str = "") -> str:
    """What is not printable (control characters, line ends, directions of writing, lone surrogates), backslashes and
    the characters `also` as Python's escapes, so that the text can do nothing to a terminal and nothing is hidden."""
    return "".join(
        character if character.isprintable() and character != "\\" and character not in also else _escaped(character)
        for character in text
    )


def escaped_bytes(data: bytes) -> str:
    r"""`\xNN` for each byte."""
    return "".join(f"\\x{byte:02x}" for byte in data)


def _escaped(character: str) -> str:
    plain = character.encode("unicode_escape", "surrogatepass").decode("ascii")
    return plain if plain != character else f"\\u{ord(character):04x}"
