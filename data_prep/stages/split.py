"""Stage split: documents that repeat nothing and hold no evaluation problem -> split/NAME-train, split/NAME-valid."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

from data_prep.documents import Document, read_documents, write_document
from data_prep.layout import (
    SOLUTIONS,
    SPLITS,
    contaminated_path,
    documents_path,
    duplicates_path,
    part_name,
    split_path,
)
from data_prep.overlap.dedup import duplicates_in
from data_prep.plan import Plan
from data_prep.stages.dedup import count_partitions, signed_parts
from data_prep.work import Figures, Unit
from rlpt.data.manifest import atomic_writer
from rlpt.errors import DataError


def units(plan: Plan) -> list[Unit]:
    """One a part of a source, and one a part of the solutions, which are all trained on."""
    out, config, found = plan.out, plan.config, []
    partitions = count_partitions(plan)
    matches = tuple(duplicates_path(out, partition) for partition in range(partitions))
    signed = {number for *_, number in signed_parts(plan)}
    for name, index, number in plan.text_parts():
        part = part_name(name, index)
        sides = tuple(split_path(out, name, side, index) for side in SPLITS)
        drops = Drops(matches if number in signed else (), number, _contaminated(plan, name, index))
        run = partial(split_part, plan.text_path(name, index), sides, drops, config.split.valid_share)
        after = [plan.text_unit(name, index), *_drop_units(plan, part)]
        after += [f"dedup/{partition:05}" for partition in range(partitions if number in signed else 0)]
        found.append(Unit(part, run, sides, config.split.model_dump(mode="json"), tuple(after)))
    for chunk in plan.chunks:
        part, path = part_name(SOLUTIONS, chunk.index), split_path(out, SOLUTIONS, "train", chunk.index)
        drops = Drops((), 0, _contaminated(plan, SOLUTIONS, chunk.index))
        run = partial(split_part, documents_path(out, SOLUTIONS, chunk.index), (path,), drops, 0.0)
        found.append(Unit(part, run, (path,), None, (f"synthesize/{part}", *_drop_units(plan, part))))
    return found


class Drops:
    """Reasons by which documents of one part are left out. Picklable; it reads its files where it is used."""

    def __init__(self, matches: tuple[Path, ...], number: int, contaminated: Path | None) -> None:
        """`matches`: the lists of duplicates; `number`: of the part among all."""
        self.matches, self.number, self.contaminated = matches, number, contaminated

    def load(self) -> dict[int, str]:
        """Row of the part -> reason."""
        found = {row: f"duplicate_{kind}" for row, (kind, _) in duplicates_in(self.matches, self.number).items()}
        if self.contaminated is not None:
            rows = json.loads(self.contaminated.read_bytes())
            found |= {int(row): f"contaminated_{reason.partition(':')[0]}" for row, reason in rows.items()}
        return found


def split_part(read: Path, sides: tuple[Path, ...], drops: Drops, valid_share: float) -> Figures:
    """Writes the part's documents to the sides; with one side, all to that."""
    reasons, dropped = drops.load(), Counter[str]()
    counts, size = dict.fromkeys(SPLITS, 0), 0
    with _writers(sides) as files:
        for row, document in enumerate(read_documents(read)):
            if row in reasons:
                dropped[reasons[row]] += 1
                continue
            side = int(len(sides) > 1 and is_valid(document, valid_share))
            write_document(files[side], document)
            counts[SPLITS[side]] += 1
            size += len(document.text.encode("utf-8"))
    return {"documents": sum(counts.values()), "utf8_bytes": size, **counts, "dropped": dict(dropped)}


def is_valid(document: Document, share: float) -> bool:
    """Whether a document is held out: the hash of what it is about, as a fraction of all hashes, is below `share`."""
    digest = hashlib.blake2b((document.about or document.text).encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def check(plan: Plan) -> None:
    """Raises DataError when a side of a source is left without documents."""
    for source in plan.config.sources:
        counts = {side: plan.total("split", side, source.name) for side in SPLITS}
        for side, count in counts.items():
            if not count:
                raise DataError(
                    f"source '{source.name}': none of {sum(counts.values())} documents fell into {side} with "
                    f"split.valid_share={plan.config.split.valid_share}; change the share or add documents"
                )


@contextmanager
def _writers(paths: tuple[Path, ...]) -> Iterator[list[BinaryIO]]:
    with ExitStack() as stack:
        yield [stack.enter_context(atomic_writer(path)) for path in paths]


def _contaminated(plan: Plan, name: str, index: int) -> Path | None:
    return contaminated_path(plan.out, name, index) if plan.config.decontaminate is not None else None


def _drop_units(plan: Plan, part: str) -> list[str]:
    return [f"decontaminate/{part}"] if plan.config.decontaminate is not None else []
