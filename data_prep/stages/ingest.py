"""Stage ingest: every source -> documents/NAME/PART.jsonl."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from data_prep.config import SourceConfig
from data_prep.documents import write_document
from data_prep.layout import documents_path, part_name
from data_prep.plan import Plan
from data_prep.sources.bad_records import BadRecords
from data_prep.sources.readers import Part, part_fingerprint, read_part
from data_prep.work import Figures, Unit
from rlpt.data.manifest import atomic_writer
from rlpt.errors import DataError


def units(plan: Plan) -> list[Unit]:
    """One a part of a source."""
    found = []
    for source in plan.config.sources:
        for part in plan.parts[source.name]:
            path = documents_path(plan.out, source.name, part.index)
            run = partial(ingest_part, source, part, path, plan.config.skip_bad)
            inputs = [part_fingerprint(source, part), plan.config.skip_bad]
            found.append(Unit(part_name(source.name, part.index), run, (path,), inputs, after=()))
    return found


def ingest_part(source: SourceConfig, part: Part, path: Path, skip_bad: int) -> Figures:
    """Writes the part's documents; counts them, and what was left out."""
    count = size = 0
    stopped = False
    bad = BadRecords(skip_bad)
    with atomic_writer(path) as file:
        for document in read_part(source, part, bad):
            length = len(document.text.encode("utf-8"))
            if source.max_bytes is not None and size + length > source.max_bytes:
                stopped = True
                break
            write_document(file, document)
            count, size = count + 1, size + length
    figures: Figures = {"documents": count, "utf8_bytes": size, "stopped_at_max_bytes": stopped}
    return figures | {"skipped": bad.count, "skipped_examples": list(bad.examples)}


def check(plan: Plan) -> None:
    """Raises DataError for a source without text, and when more was bad than may be skipped."""
    for source in plan.config.sources:
        if not plan.total("ingest", "documents", source.name):
            raise DataError(
                f"source '{source.name}': no text below max_bytes={source.max_bytes}: the corpus is empty; add files, "
                "raise max_bytes or correct sources.*.paths"
            )
        skipped = plan.total("ingest", "skipped", source.name)
        if skipped > plan.config.skip_bad:
            raise DataError(
                f"source '{source.name}': {skipped} bad records in its parts together, skip_bad is "
                f"{plan.config.skip_bad}; mend them, or raise it"
            )
