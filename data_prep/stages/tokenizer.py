"""Stages sample and tokenizer: training text -> sample/NAME/PART.jsonl -> tokenizer/.

Of every part the texts with the smallest keyed hashes are kept, enough for the whole sample; of these, those of all
parts. So one process trains on a fair sample without reading the corpus.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from data_prep.documents import Document, write_document
from data_prep.existing_tokenizer import existing_fingerprint
from data_prep.layout import SOLUTIONS, part_name, sample_path, split_path
from data_prep.plan import Plan
from data_prep.tokenizer import Measure, draw, train_tokenizer
from data_prep.work import Figures, Unit
from rlpt.data.manifest import atomic_writer
from rlpt.data.tokenizer import META_FILE


def sample_units(plan: Plan) -> list[Unit]:
    """One a part of what is trained on; none for a tokenizer that exists."""
    config, options, found = plan.config, plan.config.tokenizer, []
    if options.existing:
        return []
    each = options.sample_bytes // len(config.sources)
    parts = [(name, index) for name, index, _ in plan.text_parts()]
    for name, index in [*parts, *((SOLUTIONS, chunk.index) for chunk in plan.chunks)]:
        unit: Measure = "texts" if name == SOLUTIONS else "bytes"
        budget = options.sample_solutions if name == SOLUTIONS else each
        part, path = part_name(name, index), sample_path(plan.out, name, index)
        run = partial(_sample, split_path(plan.out, name, "train", index), path, config.seed, budget, unit)
        found.append(Unit(part, run, (path,), [config.seed, budget, unit], after=(f"split/{part}",)))
    return found


def tokenizer_units(plan: Plan) -> list[Unit]:
    """One."""
    options, out = plan.config.tokenizer, plan.out
    parts = {name: [part.index for part in found] for name, found in plan.parts.items()}
    parts[SOLUTIONS] = [chunk.index for chunk in plan.chunks]
    samples = {name: [sample_path(out, name, index) for index in found] for name, found in parts.items()}
    inputs = [
        plan.config.seed,
        options.model_dump(mode="json"),
        existing_fingerprint(options.existing),
        plan.config.synthesize.model_dump(mode="json"),  # its tasks' characters get tokens
    ]
    run = partial(train_tokenizer, plan.config, samples, out)
    return [Unit("tokenizer", run, (out / "tokenizer" / META_FILE,), inputs)]


def _sample(read: Path, path: Path, seed: int, budget: int, unit: Measure) -> Figures:
    texts = draw([read], seed, budget, unit)
    with atomic_writer(path) as file:
        for text in texts:
            write_document(file, Document(text, ""))
    return {"documents": len(texts)}
