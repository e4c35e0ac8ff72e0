"""How many near-duplicates are found: documents of the corpus are copied with edits, and looked for."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from data_prep.config import PrepConfig
from data_prep.documents import read_documents
from data_prep.overlap.minhash import DedupConfig
from data_prep.overlap.planted import measure, table
from data_prep.plan import Plan
from data_prep.stages.dedup import signed_parts
from rlpt.errors import DataError

_DOCUMENTS = 20_000  # of the corpus, most


def show_recall(config: PrepConfig, out: Path) -> None:
    """Prints recall and precision by share of edits, on the first documents that stages ingest and clean wrote."""
    plan = Plan(config, out)
    paths = [plan.text_path(name, index) for name, index, _ in signed_parts(plan)]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None or not paths:
        raise DataError(f"{missing or out}: no documents to measure on; run stage ingest (and clean) first")
    documents = (document.text for path in paths for document in read_documents(path))
    options = config.dedup or DedupConfig.model_validate({"near": True})
    print(table(measure(list(islice(documents, _DOCUMENTS)), options)))
