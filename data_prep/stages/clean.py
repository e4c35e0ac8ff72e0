"""Stage clean: documents -> clean/NAME/PART.jsonl; what is dropped is counted by reason."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from data_prep.cleaning.cleaner import CleanConfig, Cleaner
from data_prep.documents import read_documents, write_document
from data_prep.layout import clean_path, documents_path, part_name
from data_prep.plan import Plan
from data_prep.work import Figures, Unit
from rlpt.data.manifest import atomic_writer


def units(plan: Plan) -> list[Unit]:
    """One a part of a text source; none without a section `clean`."""
    options = plan.config.clean
    if options is None:
        return []
    found = []
    for name, index, _ in plan.text_parts():
        part, written = part_name(name, index), clean_path(plan.out, name, index)
        run = partial(clean_part, options, documents_path(plan.out, name, index), written)
        found.append(Unit(part, run, (written,), options.model_dump(mode="json"), after=(f"ingest/{part}",)))
    return found


def clean_part(options: CleanConfig, read: Path, written: Path) -> Figures:
    """Cleans the part's documents, in order."""
    cleaner, dropped = Cleaner(options), Counter[str]()
    count = size = 0
    with atomic_writer(written) as file:
        for document in read_documents(read):
            cleaned = cleaner(document)
            if isinstance(cleaned, str):
                dropped[cleaned] += 1
                continue
            write_document(file, cleaned)
            count, size = count + 1, size + len(cleaned.text.encode("utf-8"))
    return {"documents": count, "utf8_bytes": size, "dropped": dict(dropped), "changed": dict(cleaner.counts)}
