"""Stages sign and dedup: documents -> signatures/NAME/PART.records -> duplicates/PARTITION.records.

Signatures lie in partitions by hash, so that the documents that might repeat each other are looked at together, one
partition's at a time, however large the corpus is. Made-up documents are not looked at: they may repeat.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_prep.documents import read_documents
from data_prep.layout import duplicates_path, part_name, signatures_path
from data_prep.overlap.dedup import match_partition, num_partitions, sign_part
from data_prep.overlap.minhash import DedupConfig
from data_prep.plan import Plan
from data_prep.work import Figures, Unit


def sign_units(plan: Plan) -> list[Unit]:
    """One a part of a text source; none without a section `dedup`."""
    options = plan.config.dedup
    if options is None:
        return []
    found = []
    for name, index, number in signed_parts(plan):
        path = signatures_path(plan.out, name, index)
        run = partial(_sign, plan.text_path(name, index), number, path, options)
        inputs = [options.model_dump(mode="json"), number]
        found.append(Unit(part_name(name, index), run, (path,), inputs, after=(plan.text_unit(name, index),)))
    return found


def match_units(plan: Plan) -> list[Unit]:
    """One a partition of the hashes."""
    paths = [signatures_path(plan.out, name, index) for name, index, _ in signed_parts(plan)]
    partitions, found = count_partitions(plan), []
    for partition in range(partitions):
        path = duplicates_path(plan.out, partition)
        run = partial(match_partition, paths, partition, partitions, path)
        found.append(Unit(f"{partition:05}", run, (path,), partitions))
    return found


def signed_parts(plan: Plan) -> Iterator[tuple[str, int, int]]:
    """The parts in which duplicates are looked for: those of sources that are not made up."""
    made_up = {source.name for source in plan.config.sources if source.look_ups is not None}
    return ((name, index, number) for name, index, number in plan.text_parts() if name not in made_up)


def count_partitions(plan: Plan) -> int:
    """Depends on what was signed; 0 without a section `dedup`."""
    return 0 if plan.config.dedup is None else num_partitions(plan.total("sign", "records"))


def _sign(read: Path, number: int, path: Path, options: DedupConfig) -> Figures:
    return dict(sign_part(read_documents(read), number, path, options))
