"""Data sets of the Hugging Face hub, or of a local folder, streamed by `datasets`."""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.config import SourceConfig
from data_prep.documents import Document, check_source_text
from data_prep.sources.bad_records import BadRecords
from rlpt.errors import ConfigError, DataError
from rlpt.registry import suggest


def read_hub(source: SourceConfig, bad: BadRecords) -> Iterator[Document]:
    """A document a row; bad rows go to `bad`. Raises DataError when the data set can't be found or read on."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(f"source '{source.name}': hub needs the `datasets` package ({error}); install it") from None
    where = f"source '{source.name}': hub data set '{source.hub}'"
    try:
        rows = datasets.load_dataset(source.hub, source.hub_config, split=source.hub_split, streaming=True)
        for number, row in enumerate(rows, start=1):
            if source.text_key not in row:
                raise DataError(f"{where}: no column '{source.text_key}'{suggest(source.text_key, list(row))}")
            place, key = f"{source.hub}/{source.hub_split}:{number}", source.text_key
            try:
                document = Document(check_source_text(row[key], key, place, source.max_document_bytes), place)
            except DataError as error:
                bad.meet(error)
                continue
            yield document
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where} can't be read: {error}; check the name and the network, or use paths") from error
