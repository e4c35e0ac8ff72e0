"""Parquet: the one column that holds the text, a few rows at a time.

A dictionary-encoded or compressed file of megabytes can hold gigabytes, and its footer may lie. So few rows are decoded
at once, and what comes out is counted against the size of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.config import SourceConfig
from data_prep.documents import Document, check_source_text, too_long
from data_prep.sources.bad_records import BadRecords
from data_prep.sources.streams import Expansion, open_file
from rlpt.errors import DataError
from rlpt.registry import suggest

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

_AT_ONCE = 1 << 30  # bytes of the longest rows that are let in, together
_ROWS = 64
_ROWS_OF_DICTIONARY = 1 << 16  # which hold their dictionary once, and copy it for each batch
_BUFFER = 1 << 20


def read_parquet(path: Path, where: str, source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    """A document a row, the string in `source.text_key`; bad rows go to `bad`.

    Raises DataError for a file that is not Parquet or is damaged, without that column, or with more than
    `max_expansion` times its bytes of text.
    """
    import pyarrow
    import pyarrow.parquet

    limit = source.max_document_bytes
    expansion = Expansion(where, source.max_expansion, limit)
    number = 0
    try:
        with (
            open_file(path, where) as raw,
            pyarrow.parquet.ParquetFile(raw, buffer_size=_BUFFER, pre_buffer=False) as file,
        ):
            size = path.stat().st_size
            _check_column(file, where, source)
            rows = max(1, min(_ROWS, _AT_ONCE // limit))
            if pyarrow.types.is_dictionary(file.schema_arrow.field(source.text_key).type):
                rows = _ROWS_OF_DICTIONARY
            for batch in file.iter_batches(batch_size=rows, columns=[source.text_key], use_threads=False):
                for cell in batch.column(0):
                    number += 1
                    place = f"{where}:{number}"
                    try:
                        text = _text(cell, source, place)
                    except DataError as error:
                        bad.meet(error)
                        text = ""
                    expansion.add(len(text), size)
                    yield Document(text, place)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{where}: not readable as Parquet ({error}); write it anew") from None


def _check_column(file: pyarrow.parquet.ParquetFile, where: str, source: SourceConfig) -> None:
    """Raises DataError unless there is such a column, of strings, whose rows are not too long by the footer's word."""
    key, names = source.text_key, file.schema_arrow.names
    if key not in names:
        raise DataError(f"{where}: no column '{key}'{suggest(key, names)}; set text_key")
    index = next((i for i in range(file.metadata.num_columns) if file.schema.column(i).path == key), None)
    if index is None or file.schema.column(index).physical_type != "BYTE_ARRAY":
        raise DataError(f"{where}: column '{key}' must hold strings, holds {file.schema_arrow.field(key).type}")
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        if group.column(index).total_uncompressed_size > 2 * (group.num_rows + 1) * source.max_document_bytes:
            raise DataError(f"{where}: row group {number + 1}: rows are {too_long(source.max_document_bytes)}")


def _text(cell: pyarrow.Scalar, source: SourceConfig, where: str) -> str:
    try:
        value = cell.as_py()
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: invalid UTF-8 at byte offset {error.start}; mend or remove the row") from None
    return check_source_text(value, source.text_key, where, source.max_document_bytes)
