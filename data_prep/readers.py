"""Documents of a source: plain text, JSONL and Parquet files, the interpreter's library, the hub, or made by a rule."""

from __future__ import annotations

import glob
import os
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path

from data_prep.config import SourceConfig, fingerprint
from data_prep.documents import Document, check_text, decode_utf8, read_jsonl, text_of
from data_prep.look_ups import look_up_documents
from rlpt.errors import DataError
from rlpt.registry import suggest

SUFFIXES = {".txt": "txt", ".md": "md", ".py": "py", ".jsonl": "jsonl", ".parquet": "parquet"}
_NOT_LIBRARY = {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "__pycache__"}


def list_files(source: SourceConfig) -> list[Path]:
    """The source's files, sorted, without excluded ones. Raises DataError when a path matches nothing."""
    if source.python_library:
        return _library_files(source)
    found: set[Path] = set()
    for pattern in source.paths:
        path = Path(pattern)
        if path.is_dir():
            matches = [p for p in path.rglob("*") if p.is_file() and _kind(p, source, strict=False)]
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


def inputs_fingerprint(source: SourceConfig) -> str:
    """Hash of what the source would read: names, sizes and modification times of its files."""
    if source.hub or source.look_ups is not None:
        return fingerprint(source)
    listed = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in list_files(source)]
    return fingerprint(source, listed)


def read_source(source: SourceConfig) -> Iterator[Document]:
    """The source's documents; empty ones are left out. Raises DataError naming file and line or byte offset."""
    if source.look_ups is not None:
        return look_up_documents(source.look_ups, source.name)
    documents = _read_hub(source) if source.hub else _read_files(source)
    return (document for document in documents if document.text)


def _read_files(source: SourceConfig) -> Iterator[Document]:
    files = list_files(source)
    if source.python_library:  # by hash of the name, so that a byte limit leaves a fair sample
        root = Path(sysconfig.get_paths()["stdlib"])
        files.sort(key=lambda path: fingerprint(path.relative_to(root).as_posix()))
    for path in files:
        kind = _kind(path, source, strict=True)
        if kind == "jsonl":
            for number, record in read_jsonl(path, source.max_document_bytes):
                yield Document(text_of(record, source.text_key, path, number), f"{path}:{number}")
        elif kind == "parquet":
            yield from _read_parquet(path, source)
        else:
            size = path.stat().st_size
            if size > source.max_document_bytes:
                raise DataError(f"{path}: {size} bytes; split it, or raise max_document_bytes")
            yield Document(decode_utf8(path.read_bytes(), str(path)), str(path))


def _read_parquet(path: Path, source: SourceConfig) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            if source.text_key not in columns:
                raise DataError(
                    f"{path}: no column '{source.text_key}'{suggest(source.text_key, columns)}; set text_key"
                )
            number = 0
            for batch in file.iter_batches(batch_size=64, columns=[source.text_key]):
                for text in batch.column(0).to_pylist():
                    number += 1
                    yield Document(_cell(text, source, f"{path}: row {number}"), f"{path}:{number}")
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not readable as Parquet ({error}); write it anew") from None


def _read_hub(source: SourceConfig) -> Iterator[Document]:
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"source '{source.name}': hub needs the `datasets` package ({error}); install it") from None
    where = f"source '{source.name}': hub data set '{source.hub}'"
    try:
        rows = datasets.load_dataset(source.hub, source.hub_config, split=source.hub_split, streaming=True)
        for number, row in enumerate(rows, start=1):
            if source.text_key not in row:
                raise DataError(f"{where}: no column '{source.text_key}'{suggest(source.text_key, list(row))}")
            text = _cell(row[source.text_key], source, f"{where}: row {number}")
            yield Document(text, f"{source.hub}/{source.hub_split}:{number}")
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where} can't be read: {error}; check the name and the network, or use paths") from error


def _cell(text: object, source: SourceConfig, where: str) -> str:
    if not isinstance(text, str):
        raise DataError(f"{where}: '{source.text_key}' must be a string, is {type(text).__name__}; set text_key")
    if len(text) > source.max_document_bytes:
        raise DataError(f"{where}: longer than {source.max_document_bytes} bytes; raise max_document_bytes")
    return check_text(text, where)


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


def _kind(path: Path, source: SourceConfig, strict: bool) -> str | None:
    kind = SUFFIXES.get(path.suffix.lower())
    if source.kind != "auto":
        return source.kind if strict or kind == source.kind else None
    if kind is None and strict:
        raise DataError(f"{path}: unknown suffix; known: {', '.join(SUFFIXES)}; or set kind for this source")
    return kind
