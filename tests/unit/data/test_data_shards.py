"""Shards and their manifest: Megatron's bytes, Megatron's reader, and refusal of anything that does not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.shards import write_shards, write_tokenizer

from rlpt.data.indexed import ShardWriter, open_shard
from rlpt.data.manifest import atomic_writer, read_manifest, verify_shard
from rlpt.errors import DataError

DOCUMENTS = [[5, 6, 7, 2], [9, 2], [300, 301, 302, 303, 399, 2]]


@pytest.fixture
def corpus(tmp_path):
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    write_shards(tmp_path, tokenizer, {"text-train": DOCUMENTS})
    return tmp_path / "text-train", tokenizer


@pytest.mark.parametrize(("vocab_size", "dtype"), [(400, np.uint16), (70_000, np.int32)])
def test_the_writer_gives_megatrons_bytes_and_megatron_reads_them(tmp_path, vocab_size, dtype):
    from megatron.core.datasets.indexed_dataset import IndexedDataset, IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=dtype)
    for document in DOCUMENTS:
        builder.add_document(torch.tensor(document), [len(document)])
    builder.finalize(str(tmp_path / "theirs.idx"))
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    tokenizer.vocab_size = vocab_size
    with ShardWriter(tmp_path / "ours", tokenizer, tokenizer.byte_lengths) as writer:
        for document in DOCUMENTS:
            writer.add(document)
        writer.finish()
    for suffix in (".bin", ".idx"):
        assert Path(f"{tmp_path}/ours{suffix}").read_bytes() == Path(f"{tmp_path}/theirs{suffix}").read_bytes()
    dataset = IndexedDataset(str(tmp_path / "ours"))
    assert [dataset[i].tolist() for i in range(len(dataset))] == DOCUMENTS


def test_a_shard_reads_documents_slices_and_chunks(corpus):
    prefix, tokenizer = corpus
    shard = open_shard(prefix, tokenizer)
    assert (shard.num_documents, shard.num_tokens, shard.lengths.tolist()) == (3, 12, [4, 2, 6])
    assert shard.document(2).tolist() == DOCUMENTS[2]
    assert shard.document(2, 1, 4).tolist() == [301, 302, 303]
    assert shard.document(0, 2, 2).tolist() == []
    flat = [token for document in DOCUMENTS for token in document]
    for size in (1, 5, 100):
        assert np.concatenate(list(shard.chunks(size))).tolist() == flat
    entry = read_manifest(prefix.parent).shards["text-train"]
    assert (entry.documents, entry.tokens, entry.largest_id) == (3, 12, 399)
    assert entry.utf8_bytes == tokenizer.byte_lengths[flat].sum()


def refused(corpus, match):
    with pytest.raises(DataError, match=match):
        open_shard(*corpus)


def test_damaged_files_are_named_with_the_remedy(corpus):
    prefix, _ = corpus
    data = prefix.with_name("text-train.bin")
    data.write_bytes(data.read_bytes()[:-3])
    refused(corpus, r"text-train\.bin: 21 bytes, the manifest says 24.*data_prep all")
    data.unlink()
    refused(corpus, r"text-train\.bin: missing.*data_prep all")


def test_a_flipped_byte_is_found_by_its_hash(corpus):
    prefix, _ = corpus
    entry = read_manifest(prefix.parent).shards["text-train"]
    verify_shard(prefix, entry)
    data = prefix.with_name("text-train.bin")
    flipped = bytearray(data.read_bytes())
    flipped[4] ^= 1
    data.write_bytes(flipped)
    with pytest.raises(DataError, match=r"text-train\.bin: SHA-256"):
        verify_shard(prefix, entry)


def test_a_broken_index_is_refused_at_open(corpus):
    prefix, _ = corpus
    index = prefix.with_name("text-train.idx")
    good = index.read_bytes()
    index.write_bytes(b"X" + good[1:])
    refused(corpus, r"text-train\.idx: not an index")
    index.write_bytes(good[:34] + (3).to_bytes(4, "little") + good[38:])
    refused(corpus, r"text-train\.idx: 3 documents and 11 tokens, the manifest says 3 and 12")


def test_another_tokenizer_is_refused(corpus, tmp_path):
    other = write_tokenizer(tmp_path / "other", vocab_size=390)
    refused((corpus[0], other), r"manifest\.json: made with tokenizer")


def test_manifest_must_be_there_and_whole(corpus):
    prefix, tokenizer = corpus
    refused((prefix.with_name("text-vlaid"), tokenizer), r"text-vlaid: no such shard .*shards there: text-train")
    path = prefix.with_name("manifest.json")
    values = json.loads(path.read_text())
    values["shards"]["text-train"]["largest_id"] = 400
    path.write_text(json.dumps(values))
    refused(corpus, "token id 400, the vocabulary has 400")
    path.write_text(json.dumps(values | {"version": 9}))
    refused(corpus, "version 9")
    path.write_text("{")
    refused(corpus, r"manifest\.json: not valid JSON")
    path.write_text(json.dumps({"version": 1}))
    refused(corpus, r"manifest\.json: not a manifest")
    path.unlink()
    refused(corpus, r"manifest\.json: missing")


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    def interrupted():
        with atomic_writer(tmp_path / "file") as file:
            file.write(b"half")
            raise KeyError

    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(KeyError):
        interrupted()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]
