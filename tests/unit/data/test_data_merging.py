"""Shards written from bytes and merged from parts hold what one writer gives, and stock Megatron reads them."""

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers.shards import write_tokenizer

from rlpt.data import indexed
from rlpt.data.indexed import ShardWriter, merge_shards
from rlpt.data.manifest import verify_shard
from rlpt.errors import DataError

RNG = np.random.default_rng(4)
DOCUMENTS = [[*RNG.integers(4, 400, size=RNG.integers(0, 30)).tolist(), 2] for _ in range(300)]


@pytest.fixture
def tokenizer(tmp_path):
    return write_tokenizer(tmp_path / "tokenizer")


def write_one_by_one(prefix, tokenizer, documents):
    with ShardWriter(prefix, tokenizer, tokenizer.byte_lengths) as writer:
        for document in documents:
            writer.add(document)
        return writer.finish()


def write_bytes(prefix, tokenizer, chunks, dtype=np.uint16):
    with ShardWriter(prefix, tokenizer, tokenizer.byte_lengths) as writer:
        for documents in chunks:
            flat = [token for document in documents for token in document]
            writer.add_encoded(np.array(flat, dtype).tobytes(), np.array([len(d) for d in documents], np.int64))
        return writer.finish()


def contents(prefix):
    return [prefix.with_name(prefix.name + suffix).read_bytes() for suffix in (".bin", ".idx")]


@pytest.fixture(params=[None, 7], ids=["usual blocks", "blocks of seven"])
def blocks(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(indexed, "_INDEX_BLOCK", request.param)
        monkeypatch.setattr(indexed, "_COPY_BLOCK", 4 * request.param)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("vocab_size", "dtype"), [(400, np.uint16), (70_000, np.int32)])
def test_bytes_and_merged_parts_give_the_files_and_the_entry_of_one_writer(tmp_path, tokenizer, vocab_size, dtype):
    tokenizer.vocab_size = vocab_size
    one = write_one_by_one(tmp_path / "one", tokenizer, DOCUMENTS)
    assert write_bytes(tmp_path / "bytes", tokenizer, [DOCUMENTS[:100], [], DOCUMENTS[100:]], dtype) == one
    cuts = [0, 50, 50, 299, 300]
    parts = [
        (tmp_path / f"part{n}", write_bytes(tmp_path / f"part{n}", tokenizer, [DOCUMENTS[start:stop]], dtype))
        for n, (start, stop) in enumerate(pairwise(cuts))
    ]
    assert merge_shards(parts, tmp_path / "merged") == one
    assert contents(tmp_path / "merged") == contents(tmp_path / "bytes") == contents(tmp_path / "one")
    verify_shard(tmp_path / "merged", one)
    assert merge_shards(parts[1:2], tmp_path / "empty").documents == 0


def test_parts_that_changed_or_do_not_fit_are_refused_and_nothing_is_left(tmp_path, tokenizer):
    first = (tmp_path / "a", write_bytes(tmp_path / "a", tokenizer, [DOCUMENTS[:5]]))
    tokenizer.vocab_size = 70_000
    second = (tmp_path / "b", write_bytes(tmp_path / "b", tokenizer, [DOCUMENTS[:5]], np.int32))
    with pytest.raises(DataError, match=r"ids of another size"):
        merge_shards([first, second], tmp_path / "merged")
    with pytest.raises(DataError, match=r"a\.bin: is not the \d+ bytes that were written"):
        merge_shards([(first[0], replace(first[1], bin_bytes=first[1].bin_bytes + 2))], tmp_path / "merged")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("merged")]


def test_bytes_that_are_no_documents_are_refused(tmp_path, tokenizer):
    with ShardWriter(tmp_path / "x", tokenizer, tokenizer.byte_lengths) as writer:
        for ids, lengths, reason in (
            ([5, 2], [1], "2 tokens for documents of 1"),
            ([5, 2], [2, 0], "at least its end-of-text token"),
            ([400], [1], "token id outside 0..399"),
        ):
            with pytest.raises(AssertionError, match=reason):
                writer.add_encoded(np.array(ids, np.uint16).tobytes(), np.array(lengths))
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


@pytest.fixture
def merged(tmp_path, tokenizer):
    """Two merged shards."""
    prefixes = []
    for name, documents in (("first", DOCUMENTS[:200]), ("second", DOCUMENTS[200:])):
        half = len(documents) // 2
        parts = [
            (tmp_path / f"{name}{n}", write_bytes(tmp_path / f"{name}{n}", tokenizer, [chunk]))
            for n, chunk in enumerate((documents[:half], documents[half:]))
        ]
        merge_shards(parts, tmp_path / name)
        prefixes.append(str(tmp_path / name))
    return prefixes


class PlainTokenizer:
    """What Megatron's data sets ask of a tokenizer."""

    eod, pad, vocab_size, unique_identifiers = 2, 3, 400, {"class": "plain"}


def megatron_config(cache, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.datasets.gpt_dataset import GPTDatasetConfig
    return GPTDatasetConfig(
        random_seed=1,
        sequence_length=16,
        path_to_cache=cache,
        tokenizer=PlainTokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        **options,
    )


def test_megatrons_indexed_dataset_reads_a_merged_shard(merged):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    dataset = IndexedDataset(merged[0])
    assert [dataset[index].tolist() for index in range(len(dataset))] == DOCUMENTS[:200]
    assert dataset.document_indices.tolist() == list(range(201))


def test_megatrons_gpt_dataset_reads_a_merged_shard(merged, tmp_path):
    from megatron.core.datasets.gpt_dataset import GPTDataset
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    config = megatron_config(str(tmp_path / "cache"), blend=(merged[:1], None), split="1,0,0")
    shard = IndexedDataset(merged[0])
    dataset = GPTDataset(shard, merged[0], np.arange(len(shard), dtype=np.int32), 50, Split.train, config)
    pairs = {pair for document in DOCUMENTS[:200] for pair in pairwise(document)}
    for index in range(50):
        tokens, labels = dataset[index]["tokens"].tolist(), dataset[index]["labels"].tolist()
        assert labels[:-1] == tokens[1:]
        assert {pair for pair in zip(tokens, labels) if pair[0] != 2} <= pairs


def test_megatrons_blend_of_very_unequal_weights_reads_merged_shards(merged):
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset

    config = megatron_config(None, blend=(merged, [0.001, 0.999]), split="1,0,0")
    builder = BlendedMegatronDatasetBuilder(GPTDataset, [2000, 0, 0], lambda: True, config)
    train = builder.build()[0]
    drawn = [train[index]["dataset_id"] for index in range(2000)]
    assert (drawn.count(0), drawn.count(1)) == (2, 1998)
    assert train[1]["tokens"].shape == (16,)
