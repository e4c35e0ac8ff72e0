"""Stage decontaminate: which documents hold problems of an evaluation -> contaminated/NAME/PART.json."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from data_prep.documents import read_documents
from data_prep.layout import SOLUTIONS, contaminated_path, documents_path, part_name
from data_prep.overlap.decontaminate import DecontaminateConfig, Evaluations
from data_prep.plan import Plan
from data_prep.work import Figures, Unit
from rlpt.data.manifest import write_json


def units(plan: Plan) -> list[Unit]:
    """One a part of a source and of the solutions; none without a section `decontaminate`."""
    options = plan.config.decontaminate
    if options is None:
        return []
    asked = [(str(file.path), file.path.stat().st_size, file.path.stat().st_mtime_ns) for file in options.files]
    inputs = [options.model_dump(mode="json"), asked]

    def unit(name: str, index: int, read: Path, after: str) -> Unit:
        path = contaminated_path(plan.out, name, index)
        return Unit(part_name(name, index), partial(_find, options, read, path), (path,), inputs, after=(after,))

    found = [
        unit(name, index, plan.text_path(name, index), plan.text_unit(name, index))
        for name, index, _ in plan.text_parts()
    ]
    for chunk in plan.chunks:
        read, after = (
            documents_path(plan.out, SOLUTIONS, chunk.index),
            f"synthesize/{part_name(SOLUTIONS, chunk.index)}",
        )
        found.append(unit(SOLUTIONS, chunk.index, read, after))
    return found


def _find(options: DecontaminateConfig, read: Path, path: Path) -> Figures:
    evaluations, rows, counts = Evaluations.load(options), {}, Counter[str]()
    for row, (_, reason) in enumerate(evaluations.check(read_documents(read))):
        if reason is not None:
            rows[row] = reason
            counts[reason.partition(":")[0]] += 1
    write_json(path, rows)
    return {"contaminated": dict(counts)}
