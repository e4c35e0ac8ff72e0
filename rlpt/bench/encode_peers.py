"""The peers of `rlpt bench encode`, each a whole process that writes the same shard.

    python -m rlpt.bench.encode_peers megatron-style|datasets|bytes IN.jsonl PREFIX TOKENIZER --workers 2

`megatron-style` restates what Megatron-LM's tools/preprocess_data.py does with `--workers N --append-eod`, with
the same calls: a `multiprocessing.Pool` whose `imap` hands out 32 lines at a time, one document at a time through the
tokenizer, and Megatron's `IndexedDatasetBuilder` in the parent. The script itself is in no wheel.
`datasets` maps the fast transformers tokenizer over batches and writes with the same builder.
`bytes` is the limit: reader, processes and writer of this project, with a token for each byte.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rlpt.data.encoding import encode_jsonl
from rlpt.data.indexed import open_megatron_builder, shard_dtype
from rlpt.data.tokenizer import RunTokenizer, load_tokenizer


class _Worker:
    """What a process of the pool keeps between lines."""

    tokenizer: RunTokenizer


def _load(folder: Path) -> None:
    _Worker.tokenizer = load_tokenizer(folder)


def _encode_line(line: str) -> tuple[list[int], list[int]]:
    ids = _Worker.tokenizer.encode(json.loads(line)["text"])
    ids.append(_Worker.tokenizer.eos_id)
    return ids, [len(ids)]


def megatron_style(source: Path, prefix: Path, folder: Path, workers: int) -> None:
    """One document at a time through a pool of processes."""
    builder = open_megatron_builder(prefix, load_tokenizer(folder).vocab_size)
    with (
        open(source, encoding="utf-8") as lines,
        multiprocessing.Pool(workers, initializer=_load, initargs=(folder,)) as pool,
    ):
        for ids, lengths in pool.imap(_encode_line, lines, 32):
            builder.add_document(ids, lengths)
    builder.finalize(f"{prefix}.idx")


def datasets_map(source: Path, prefix: Path, folder: Path, workers: int) -> None:
    """`datasets.map` in batches of 1000 documents, its usual size; a core a process."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import datasets
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    builder = open_megatron_builder(prefix, load_tokenizer(folder).vocab_size)

    def encode(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        return {"ids": tokenizer(batch["text"], add_special_tokens=False)["input_ids"]}

    with tempfile.TemporaryDirectory() as cache:
        texts = datasets.load_dataset("json", data_files=str(source), split="train", cache_dir=cache)
        encoded = texts.map(encode, batched=True, num_proc=workers, remove_columns=texts.column_names)
        for batch in encoded.with_format("numpy").iter(1000):
            for ids in batch["ids"]:
                builder.add_document(np.append(ids, tokenizer.eos_token_id), [len(ids) + 1])
    builder.finalize(f"{prefix}.idx")


class ByteEncoder:
    """A token for each byte."""

    def __init__(self, tokenizer: RunTokenizer) -> None:
        table = np.zeros(256, shard_dtype(tokenizer.vocab_size))
        for token in range(tokenizer.vocab_size):
            if len(spelt := tokenizer.decode_bytes([token])) == 1:
                table[spelt[0]] = token
        self._table = table
        self._end = np.array([tokenizer.eos_id], table.dtype).tobytes()

    def encode(self, texts: Sequence[str], *, name: Callable[[int], str]) -> tuple[bytes, np.ndarray]:
        """As `FastEncoder.encode`."""
        rows = [self._table[np.frombuffer(text.encode("utf-8"), np.uint8)].tobytes() + self._end for text in texts]
        return b"".join(rows), np.array([len(row) for row in rows], np.int64) // self._table.itemsize


def plain_bytes(source: Path, prefix: Path, folder: Path, workers: int) -> None:
    """The limit of reading and writing."""
    encode_jsonl(source, prefix, folder, workers, ByteEncoder)


PEERS = {"megatron-style": megatron_style, "datasets": datasets_map, "bytes": plain_bytes}


def main() -> None:
    """Runs one peer as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m rlpt.bench.encode_peers")
    parser.add_argument("peer", choices=PEERS)
    for name in ("source", "prefix", "tokenizer"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    PEERS[options.peer](options.source, options.prefix, options.tokenizer, options.workers)


if __name__ == "__main__":
    main()
