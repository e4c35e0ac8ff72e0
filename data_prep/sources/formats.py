"""Formats by suffix, and those that are read as a stream: text, JSON lines, web archives.

Line ends stay as they are: CRLF is not made LF here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import BinaryIO

from data_prep.config import SourceConfig
from data_prep.documents import (
    Document,
    check_source_text,
    invalid_utf8,
    parse_object,
    read_lines,
    text_of,
    too_long,
)
from data_prep.sources.bad_records import BadRecords
from data_prep.sources.streams import COMPRESSIONS
from data_prep.sources.warc import read_warc
from rlpt.errors import DataError

_CODE = "c h cc cpp hpp rs go java js ts sh rb lean v hs ml tex rst"
SUFFIXES = {
    ".txt": "txt",
    ".md": "md",
    ".py": "py",
    **{f".{suffix}": "code" for suffix in _CODE.split()},
    ".jsonl": "jsonl",
    ".parquet": "parquet",
    ".warc": "warc",
    ".wet": "warc",
    ".tar": "tar",
    ".zip": "zip",
}
ARCHIVES = ("tar", "zip")


@dataclass(frozen=True)
class Format:
    """What a file holds, and how it is compressed: "", "gzip" or "zstd"."""

    content: str
    compression: str = ""


def format_of(name: str | PurePath, source: SourceConfig, named: bool) -> Format | None:
    """The format of a file or an archive's member; None: it is passed over.

    `source.kind` picks among the files that were found, and decides for those that the user `named`; it says what is
    inside compressed files and archives. Raises DataError for a named file of unknown format.
    """
    path = PurePath(name)
    suffix = path.suffix.lower()
    compression = "gzip" if suffix == ".tgz" else COMPRESSIONS.get(suffix, "")
    inner = ".tar" if suffix == ".tgz" else PurePath(path.stem).suffix.lower() if compression else suffix
    content = SUFFIXES.get(inner)
    if source.kind not in ("auto", content) and content not in ARCHIVES:
        content = source.kind if named else None
    if content is None and named:
        known = ", ".join(SUFFIXES)
        raise DataError(f"{path}: unknown suffix; known: {known}, with .gz or .zst; or set kind for this source")
    return Format(content, compression) if content else None


def read_text(stream: BinaryIO, where: str, source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    """One document: the whole stream. It is bad as a whole, so errors are raised, not counted in `bad`."""
    limit = source.max_document_bytes
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"{where}: {too_long(limit)}")
    if (offset := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, offset) + 1
        raise DataError(f"{where}:{line}: NUL at byte offset {offset}; a binary file? list it under `exclude`")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{where}:{line}: {invalid_utf8(error)}") from None
    yield Document(text, where)


def read_jsonl(stream: BinaryIO, where: str, source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    """A document a line, the string at `source.text_key`; bad lines go to `bad`."""
    for number, line in read_lines(stream, source.max_document_bytes, where, bad):
        place = f"{where}:{number}"
        try:
            text = text_of(parse_object(line, place), source.text_key, place)
            document = Document(check_source_text(text, source.text_key, place, source.max_document_bytes), place)
        except DataError as error:
            bad.meet(error)
            continue
        yield document


STREAMED: Mapping[str, Callable[[BinaryIO, str, SourceConfig, BadRecords], Iterator[Document]]] = {
    **dict.fromkeys(("txt", "md", "py", "code"), read_text),
    "jsonl": read_jsonl,
    "warc": read_warc,
}
