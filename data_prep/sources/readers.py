"""Documents of a source: planned as parts, each read as a stream in memory that does not grow with it."""

from __future__ import annotations

import glob
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from data_prep.config import SourceConfig, fingerprint
from data_prep.documents import Document
from data_prep.sources.archives import read_tar, read_zip
from data_prep.sources.bad_records import BadRecords
from data_prep.sources.columns import read_parquet
from data_prep.sources.formats import STREAMED, SUFFIXES, format_of
from data_prep.sources.hub import read_hub
from data_prep.sources.look_ups import look_up_documents
from data_prep.sources.streams import Expansion, open_file, open_stream, printable
from rlpt.errors import DataError

LOOK_UPS_A_PART = 50_000
_NOT_LIBRARY = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class Part:
    """A unit of work: some files of a source, or some of its made-up documents, or all of a hub's data set."""

    index: int
    files: tuple[Path, ...] = ()
    start: int = 0  # look-ups: the first document
    stop: int = 0  # and the one after the last


def parts(source: SourceConfig) -> list[Part]:
    """The source's parts, in order: the files and the configuration alone decide, not who reads them.

    Files follow each other until a part has `part_bytes` of them. A source with `max_bytes`, which counts over all of
    it, is one part, and so is a hub's data set. Raises DataError when a path matches nothing.
    """
    if source.look_ups is not None:
        count = source.look_ups.documents
        starts = [0] if source.max_bytes is not None else range(0, count, LOOK_UPS_A_PART)
        step = count if source.max_bytes is not None else LOOK_UPS_A_PART
        return [Part(index, (), start, min(start + step, count)) for index, start in enumerate(starts)]
    if source.hub:
        return [Part(0)]
    groups: list[list[Path]] = [[]]
    size = 0
    for path in _in_reading_order(source, list_files(source)):
        if size >= source.part_bytes and source.max_bytes is None:
            groups.append([])
            size = 0
        groups[-1].append(path)
        size += _stat(path).st_size
    return [Part(index, tuple(files)) for index, files in enumerate(groups)]


def read_part(source: SourceConfig, part: Part, bad: BadRecords) -> Iterator[Document]:
    """The part's documents; empty ones are left out. What can't be used goes to `bad`, which raises DataError
    `file:line: reason` by default; of a file that breaks off, what was read before stays.

    Raises DataError for a hub's data set that can't be read, ConfigError when an optional package is missing.
    """
    if source.look_ups is not None:
        documents = look_up_documents(source.look_ups, source.name, part.start, part.stop)
    elif source.hub:
        documents = read_hub(source, bad)
    else:
        documents = chain.from_iterable(_read_file(path, source, bad) for path in part.files)
    return (document for document in documents if document.text)


def read_source(source: SourceConfig) -> Iterator[Document]:
    """The documents of all parts; the first bad record is an error."""
    return chain.from_iterable(read_part(source, part, BadRecords()) for part in parts(source))


def part_fingerprint(source: SourceConfig, part: Part) -> str:
    """Hash of what the part would read: the source's configuration, its files' names, sizes and modification times."""
    listed = [(str(path), (status := _stat(path)).st_size, status.st_mtime_ns) for path in part.files]
    return fingerprint(source, listed, part.start, part.stop)


def inputs_fingerprint(source: SourceConfig) -> str:
    """Hash of what the source would read."""
    return fingerprint([part_fingerprint(source, part) for part in parts(source)])


def list_files(source: SourceConfig) -> list[Path]:
    """The source's files, sorted, without excluded ones. Raises DataError when a path matches nothing."""
    if source.python_library:
        return _library_files(source)
    found: set[Path] = set()
    for pattern in source.paths:
        path = Path(pattern)
        if path.is_dir():
            matches = [p for p in path.rglob("*") if p.is_file() and format_of(p, source, named=False)]
        elif path.is_file():
            matches = [path]
        else:
            matches = [p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file()]
        if not matches:
            raise DataError(
                f"source '{source.name}': '{pattern}' matches no {'/'.join(SUFFIXES)} file below {os.getcwd()}; "
                "correct sources.*.paths"
            )
        found.update(matches)
    return sorted(path for path in found if not set(source.exclude) & set(path.parts))


def _in_reading_order(source: SourceConfig, files: list[Path]) -> list[Path]:
    """Sorted, but the library by hash of the name, so that a byte limit leaves a fair sample."""
    if not source.python_library:
        return files
    root = Path(sysconfig.get_paths()["stdlib"])
    return sorted(files, key=lambda path: fingerprint(path.relative_to(root).as_posix()))


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{printable(path)}: {error.strerror}; put the file back, or start anew") from None


def _read_file(path: Path, source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    """The file's documents; when it breaks off, or is bad as a whole, it is one bad record."""
    try:
        yield from _open_and_read(path, source, bad)
    except DataError as error:
        bad.meet(error)


def _open_and_read(path: Path, source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    where = printable(path)
    found = format_of(path, source, named=True)
    assert found is not None
    if found.compression and found.content in ("parquet", "zip"):  # which are read from their end
        raise DataError(f"{where}: {found.content} can't be read from inside {found.compression}; decompress it first")
    if found.content == "parquet":
        yield from read_parquet(path, where, source, bad)
    elif found.content == "zip":
        yield from read_zip(path, where, source, bad)
    else:
        expansion = Expansion(where, source.max_expansion, source.max_document_bytes)
        with open_file(path, where) as raw, open_stream(raw, found.compression, where, expansion) as stream:
            read = read_tar if found.content == "tar" else STREAMED[found.content]
            yield from read(stream, where, source, bad)


def _library_files(source: SourceConfig) -> list[Path]:
    """The library's .py files that are written in UTF-8 (PEP 263 allows others)."""
    root = Path(sysconfig.get_paths()["stdlib"])
    skipped = _NOT_LIBRARY | set(source.exclude)
    files: list[Path] = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = set(subfolders) - skipped
        paths = (Path(folder, name) for name in set(names) - skipped if name.endswith(".py"))
        files += filter(_is_utf8_source, paths)
    if not files:
        raise DataError(f"source '{source.name}': no .py files below {root}; use sources.*.paths")
    return sorted(files)


def _is_utf8_source(path: Path) -> bool:
    with open(path, "rb") as file:
        try:
            encoding, _ = tokenize.detect_encoding(file.readline)
        except SyntaxError:  # an encoding that Python does not know, in a file that is not meant to be imported
            return False
    return encoding in ("utf-8", "utf-8-sig")
