"""Stages encode and merge: split/SHARD/PART.jsonl -> encoded/SHARD/PART.bin, .idx -> SHARD.bin, SHARD.idx."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

from data_prep.documents import read_documents
from data_prep.layout import SOLUTIONS, encoded_path, part_name, split_path
from data_prep.plan import Plan
from data_prep.work import Figures, Unit
from rlpt.data.encoding import FastEncoder
from rlpt.data.indexed import ShardWriter, merge_shards
from rlpt.data.manifest import MANIFEST, ShardEntry
from rlpt.data.tokenizer import load_tokenizer

_BATCH = 256  # documents that are encoded at once


def encode_units(plan: Plan) -> list[Unit]:
    """One a part of a shard."""
    made_up = {SOLUTIONS, *(source.name for source in plan.config.sources if source.look_ups is not None)}
    found = []
    for shard, parts in plan.shards().items():
        name, _, side = shard.rpartition("-")
        for index in parts:
            prefix = encoded_path(plan.out, shard, index)
            read = split_path(plan.out, name, side, index)
            run = partial(encode_part, plan.out / "tokenizer", read, prefix, name in made_up)
            after = (f"split/{part_name(name, index)}", "tokenizer/tokenizer")
            found.append(Unit(part_name(shard, index), run, _files(prefix), name in made_up, after))
    return found


def encode_part(tokenizer_folder: Path, read: Path, prefix: Path, marked: bool) -> Figures:
    """Writes a part of a shard and returns its entry as the manifest would have it. `marked`: the template's marks in
    the text are marks."""
    tokenizer = load_tokenizer(tokenizer_folder)
    encoder = FastEncoder(tokenizer)
    with ShardWriter(prefix, tokenizer, tokenizer.byte_lengths) as writer:
        documents = read_documents(read)
        while batch := list(islice(documents, _BATCH)):
            origins = [document.origin for document in batch]
            writer.add_encoded(*encoder.encode([one.text for one in batch], marked, origins.__getitem__))
        return asdict(writer.finish())


def merge_units(plan: Plan) -> list[Unit]:
    """One a shard."""
    found = []
    for shard, parts in plan.shards().items():
        prefix = plan.out / shard
        entries = [ShardEntry(**plan.figures["encode"][part_name(shard, index)]) for index in parts]
        pieces = [(encoded_path(plan.out, shard, index), entry) for index, entry in zip(parts, entries, strict=True)]
        after = tuple(f"encode/{part_name(shard, index)}" for index in parts)
        found.append(Unit(shard, partial(_merge, pieces, prefix), _files(prefix), None, after))
    return found


def _merge(pieces: list[tuple[Path, ShardEntry]], prefix: Path) -> Figures:
    (prefix.parent / MANIFEST).unlink(missing_ok=True)  # shards of two preparations must never look whole
    return asdict(merge_shards(pieces, prefix))


def _files(prefix: Path) -> tuple[Path, Path]:
    return prefix.with_name(f"{prefix.name}.bin"), prefix.with_name(f"{prefix.name}.idx")
