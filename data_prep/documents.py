"""Documents between stages: one JSON object a line, read by ourselves so that every error names file and line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from data_prep.sources.bad_records import BadRecords
from data_prep.sources.streams import BrokenStream
from rlpt.errors import DataError

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Document:
    """A text and where it comes from (a path, file:line, or task/level/seed)."""

    text: str
    origin: str
    about: str = ""  # documents about the same thing are held out together; "": about their own text


def write_document(file: BinaryIO, document: Document, **provenance: str | int) -> None:
    """Appends one line; `provenance` are further keys of it."""
    about = {"about": document.about} if document.about else {}
    line = json.dumps({"text": document.text, "origin": document.origin, **about, **provenance}, ensure_ascii=False)
    file.write(line.encode("utf-8") + b"\n")


def read_documents(path: Path, limit: int = 1 << 31) -> Iterator[Document]:
    """Documents that a stage wrote; `limit` is the longest line in bytes."""
    with open(path, "rb") as file:
        for number, line in read_lines(file, limit, str(path), BadRecords()):
            where = f"{path}:{number}"
            record = parse_object(line, where)
            text = text_of(record, "text", where)
            yield Document(text, str(record.get("origin", where)), str(record.get("about", "")))


def read_lines(stream: BinaryIO, limit: int, where: str, bad: BadRecords) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of each line that is not blank; a byte order mark at the start is dropped.

    A line above `limit` bytes is a bad record, and is passed over without being held. Raises BrokenStream, or what
    reading the stream raises, with the number of the line in which it broke.
    """
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(limit + 2)
        except BrokenStream as error:
            raise BrokenStream(f"{where}:{number}", error.reason) from None
        if not line:
            return
        whole = line.endswith(b"\n")
        if len(line.rstrip(b"\r\n")) > limit or (len(line) > limit + 1 and not whole):
            bad.meet(DataError(f"{where}:{number}: {too_long(limit)}"))
            while not whole and (line := stream.readline(_CHUNK)):
                whole = line.endswith(b"\n")
            continue
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line.strip():
            yield number, line


def too_long(limit: int) -> str:
    """What is said of a file, line or row above `limit` bytes."""
    return f"longer than {limit} bytes; split it, or raise max_document_bytes"


def text_of(record: Mapping[str, Any], key: str, where: str) -> str:
    """The record's text. Raises DataError when the key is missing, not a string, or not expressible in UTF-8."""
    if key not in record:
        known = ", ".join(sorted(record)) or "none"
        raise DataError(f"{where}: no key '{key}' (keys: {known}); set text_key")
    text = record[key]
    check_text(text, key, where)
    return text


def check_text(text: object, key: str, where: str) -> bytes:
    """The text's bytes. Raises DataError for what is no string, or holds half a surrogate pair: UTF-8 can't."""
    if not isinstance(text, str):
        raise DataError(f"{where}: '{key}' must be a string, is {type(text).__name__}; set text_key or mend the record")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: lone surrogate at character {error.start}; mend or remove the text") from None


def check_source_text(text: object, key: str, where: str, limit: int) -> str:
    """A text from outside. Raises DataError as `check_text` does, for more than `limit` bytes, and for a NUL, which
    stands in binary data and in damaged files."""
    data = check_text(text, key, where)
    assert isinstance(text, str)
    if len(data) > limit:
        raise DataError(f"{where}: {too_long(limit)}")
    if (position := text.find("\0")) >= 0:
        raise DataError(f"{where}: NUL at character {position}; binary data? mend or remove the text")
    return text


def decode_utf8(data: bytes, where: str) -> str:
    """Text of UTF-8 bytes, a byte order mark dropped. Raises DataError that names the offset of the first bad byte."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: {invalid_utf8(error)}") from None
    return text.removeprefix("\ufeff")


def invalid_utf8(error: UnicodeDecodeError) -> str:
    """What is said of bytes that are not UTF-8."""
    return (
        f"invalid UTF-8 at byte offset {error.start} ({error.reason}); convert the file to UTF-8 or list it under "
        "`exclude`"
    )


def parse_object(line: bytes, where: str) -> Mapping[str, Any]:
    """The JSON object of a line. Raises DataError for invalid UTF-8, malformed JSON (NaN and Infinity included), a key
    given twice, or a value that is not an object."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
            raise DataError(f"{where}: key '{twice[:50]}' is given twice; keep one")
        return result

    def constant(name: str) -> None:
        raise DataError(f"{where}: {name} is not JSON; write null or a number")

    try:
        record = json.loads(decode_utf8(line, where), object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: malformed JSON at column {error.colno}: {error.msg}; mend the line") from None
    except DataError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise DataError(f"{where}: {error}; mend the line") from None
    except RecursionError:
        raise DataError(f"{where}: JSON is nested too deeply; mend the line") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: not a JSON object but {type(record).__name__}; write one object a line")
    return record
