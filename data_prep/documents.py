"""Documents between stages: one JSON object a line, read by ourselves so that every error names file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rlpt.errors import DataError


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
    for number, record in read_jsonl(path, limit):
        text, origin = text_of(record, "text", path, number), str(record.get("origin", f"{path}:{number}"))
        yield Document(text, origin, str(record.get("about", "")))


def read_jsonl(path: Path, limit: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, object) of each line that is not blank; a byte order mark at the start is dropped.

    Raises DataError `file:line: reason` for a line above `limit` bytes, invalid UTF-8, malformed JSON (NaN and
    Infinity included), a key given twice, or a value that is not an object.
    """
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(limit + 1):
            number += 1
            where = f"{path}:{number}"
            if len(line.rstrip(b"\r\n")) > limit or (len(line) > limit and not line.endswith(b"\n")):
                raise DataError(f"{where}: longer than {limit} bytes; split it, or raise max_document_bytes")
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            yield number, _parse_line(line, where)


def text_of(record: Mapping[str, Any], key: str, path: Path, number: int) -> str:
    """The record's text. Raises DataError when the key is missing, not a string, or not expressible in UTF-8."""
    where = f"{path}:{number}"
    if key not in record:
        known = ", ".join(sorted(record)) or "none"
        raise DataError(f"{where}: no key '{key}' (keys: {known}); set text_key")
    text = record[key]
    if not isinstance(text, str):
        raise DataError(f"{where}: '{key}' must be a string, is {type(text).__name__}; set text_key or mend the line")
    return check_text(text, where)


def check_text(text: str, where: str) -> str:
    """`text` itself. Raises DataError for half a surrogate pair, which UTF-8 can't hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: lone surrogate at character {error.start}; mend or remove the text") from None
    return text


def decode_utf8(data: bytes, where: str) -> str:
    """Text of UTF-8 bytes, a byte order mark dropped. Raises DataError that names the offset of the first bad byte."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: invalid UTF-8 at byte offset {error.start} ({error.reason}); convert the file to UTF-8 or "
            "list it under `exclude`"
        ) from None
    return text.removeprefix("\ufeff")


def _parse_line(line: bytes, where: str) -> Mapping[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise DataError(f"{where}: key '{twice}' is given twice; keep one")
        return result

    def constant(name: str) -> None:
        raise DataError(f"{where}: {name} is not JSON; write null or a number")

    try:
        record = json.loads(decode_utf8(line, where), object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: malformed JSON at column {error.colno}: {error.msg}; mend the line") from None
    except RecursionError:
        raise DataError(f"{where}: JSON is nested too deeply; mend the line") from None
    if not isinstance(record, dict):
        raise DataError(f"{where}: not a JSON object but {type(record).__name__}; write one object a line")
    return record
