"""The corpus source: rows, boundaries, blending, order independent of ranks, exact resume, held-out passes."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.shards import write_shards, write_tokenizer

from rlpt import registry
from rlpt.batch import SourceContext
from rlpt.data.corpus import ShardStream, held_out_batches, token_counts
from rlpt.data.indexed import open_shard
from rlpt.errors import CheckpointError, ConfigError, DataError

EOS, T, B = 2, 8, 2


def documents(count, base, seed):
    rng = np.random.default_rng(seed)
    return [[*rng.integers(base, base + 60, rng.integers(0, 15)).tolist(), EOS] for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    tokenizer = write_tokenizer(folder / "tokenizer")
    write_shards(folder, tokenizer, {"a": documents(30, 100, 1), "b": documents(20, 200, 2), "tiny": [[50, EOS]]})
    return folder, tokenizer


def source(folder, rank=0, size=1, seed=1, length=T, blend=None, **options):
    blend = blend or {"a": 2, "b": 1}
    spec = {"name": "corpus", "blend": [{"path": str(folder[0] / name), "weight": w} for name, w in blend.items()]}
    context = SourceContext("text", folder[1], length, B, rank, size, seed, lambda value: [value])
    return registry.create("source", spec | options, "objectives.text.source").open(context)


def rows(batches):
    return torch.cat([torch.stack([batch.tokens, batch.labels], dim=-1) for batch in batches])


def test_an_epoch_gives_every_token_once_as_a_label_in_an_order_of_its_own(folder):
    shard = open_shard(folder[0] / "a", folder[1])
    stream = ShardStream(shard, 1, T)
    num_rows = 2 * stream.rows_per_epoch
    pieces = [stream.row(index) for index in range(num_rows)]
    everything = np.concatenate([shard.document(index) for index in range(shard.num_documents)])
    orders = []
    for epoch in range(2):
        own = pieces[epoch * stream.rows_per_epoch : (epoch + 1) * stream.rows_per_epoch]
        labels = np.concatenate([tokens[1:] for tokens, _ in own])
        left_out = len(everything) - len(labels)
        assert 0 < left_out <= T
        short = np.bincount(everything) - np.bincount(labels, minlength=everything.max() + 1)
        assert short.min() >= 0
        assert short.sum() == left_out
        orders.append(labels.tolist())
    assert orders[0] != orders[1]
    follows = [tuple(left[0][-1:]) == tuple(right[0][:1]) for left, right in pairwise(pieces)]
    assert not all(follows), "rows must not be given out in file order"
    again = ShardStream(shard, 1, T).row(num_rows - 1)[0]
    assert np.array_equal(again, pieces[-1][0])
    assert not np.array_equal(ShardStream(shard, 2, T).row(0)[0], pieces[0][0])


def test_isolated_documents_have_their_own_segment_positions_and_no_label_across(folder):
    for batch in source(folder).take(20):
        assert batch.tokens.shape == batch.labels.shape == (B, T)
        assert {batch.tokens.dtype, batch.positions.dtype, batch.segments.dtype} == {torch.int64}
        assert batch.loss_mask.dtype == torch.bool
        assert torch.equal(batch.loss_mask, batch.tokens != EOS)
        assert torch.equal(batch.tokens[:, 1:], batch.labels[:, :-1])
        for b in range(B):
            segment = position = 0
            for t in range(T):
                assert (batch.segments[b, t], batch.positions[b, t]) == (segment, position)
                ended = batch.tokens[b, t] == EOS
                segment, position = (segment + 1, 0) if ended else (segment, position + 1)


def test_ignored_boundaries_give_one_text_a_row(folder):
    for batch in source(folder, boundaries="ignore").take(3):
        assert batch.loss_mask.all()
        assert (batch.segments == 0).all()
        assert torch.equal(batch.positions, torch.arange(T).expand(B, T))
    assert torch.equal(rows(source(folder, boundaries="ignore").take(3)), rows(source(folder).take(3)))


def test_the_order_of_rows_does_not_depend_on_the_data_parallel_size(folder):
    alone = source(folder).take(6)
    first, second = (source(folder, rank=rank, size=2).take(3) for rank in range(2))
    interleaved = [batch for pair in zip(first, second) for batch in pair]
    assert torch.equal(rows(interleaved), rows(alone))
    one, two = source(folder), source(folder, rank=1, size=2)
    one.take(6), two.take(3)
    assert one.state_dict() == two.state_dict()
    assert one.metrics() == two.metrics()


def test_resume_gives_the_same_next_rows_also_at_another_size(folder):
    through = source(folder)
    through.take(5)
    state = json.loads(json.dumps(through.state_dict()))
    following = rows(through.take(4))
    resumed = source(folder)
    resumed.load_state_dict(state)
    assert torch.equal(rows(resumed.take(4)), following)
    parts = []
    for rank in range(2):
        part = source(folder, rank=rank, size=2)
        part.load_state_dict(state)
        parts.append(part.take(2))
    assert torch.equal(rows([batch for pair in zip(*parts) for batch in pair]), following)


def test_resume_refuses_what_would_change_the_rows(folder):
    state = source(folder).state_dict()
    for other, match in [
        (source(folder, seed=2), "seed is 1, this run's is 2"),
        (source(folder, length=4), "sequence_length is 8, this run's is 4"),
        (source(folder, blend={"a": 1}), "same blend"),
    ]:
        with pytest.raises(CheckpointError, match=match):
            other.load_state_dict(state)
    label = next(iter(state["shards"]))
    state["shards"][label]["sha256"] = "0"
    with pytest.raises(CheckpointError, match="has changed since the checkpoint"):
        source(folder).load_state_dict(state)


def test_epochs_count_what_has_been_seen(folder):
    blended = source(folder, blend={"a": 0.999, "b": 0.001})
    blended.take(100)
    seen = {label.rsplit("/", 1)[1]: epochs for label, epochs in blended.metrics().items()}
    tokens = {name: (open_shard(folder[0] / name, folder[1]).num_tokens - 1) // T * T for name in seen}
    total = sum(seen[name] * tokens[name] for name in seen)
    assert total == pytest.approx(100 * B * T)
    assert seen["a"] * tokens["a"] / total == pytest.approx(0.999, abs=0.006)


def test_what_can_not_work_is_refused(folder):
    with pytest.raises(DataError, match=r"tiny: 2 tokens are less than one row of batch.sequence_length \+ 1 = 9"):
        source(folder, blend={"tiny": 1})
    with pytest.raises(DataError, match="c: no such shard"):
        source(folder, blend={"c": 1})
    path = str(folder[0] / "a")
    context = SourceContext("text", folder[1], T, B, 0, 1, 1, lambda value: [value])
    for options, match in [
        ({"blend": [{"path": path}, {"path": path}]}, "listed twice"),
        ({"blend": []}, r"source\.blend"),
        ({"blend": [{"path": path, "wieght": 2}]}, r"source\.blend\.0\.wieght"),
        ({"blend": [{"path": path, "weight": 0}]}, r"source\.blend\.0\.weight"),
        ({"boundaries": "keep"}, r"source\.boundaries"),
        ({"bondaries": "ignore"}, "did you mean 'boundaries'"),
    ]:
        with pytest.raises(ConfigError, match=match):
            registry.create("source", {"name": "corpus", "blend": [{"path": path}]} | options, "x.source").open(context)


def held_out(folder, max_tokens=10**6, names=("a", "b"), **options):
    return held_out_batches([folder[0] / name for name in names], folder[1], T, B, max_tokens, **options)


def test_a_held_out_pass_has_every_label_within_a_document_exactly_once(folder):
    batches = held_out(folder, objective="held_out")
    assert {batch.objective for batch in batches} == {"held_out"}
    given = np.bincount(torch.cat([batch.labels[batch.loss_mask] for batch in batches]), minlength=400)
    wanted = np.zeros(400, dtype=np.int64)
    for name in ("a", "b"):
        shard = open_shard(folder[0] / name, folder[1])
        for index in range(shard.num_documents):
            wanted += np.bincount(shard.document(index)[1:], minlength=400)
    assert np.array_equal(given, wanted)
    last = batches[-1]
    padding = last.segments < 0
    assert padding.any()
    assert not last.loss_mask[padding].any()
    assert (last.tokens[padding] == folder[1].pad_id).all()


def test_a_held_out_pass_is_the_same_at_two_ranks_with_as_many_batches_on_each(folder):
    parts = [held_out(folder, data_rank=rank, data_size=2) for rank in range(2)]
    assert len(parts[0]) == len(parts[1])
    together = rows([batch for pair in zip(*parts) for batch in pair])
    alone = rows(held_out(folder))
    assert torch.equal(together[: len(alone)], alone)
    assert not parts[1][-1].loss_mask.any() or len(together) == len(alone)


def test_a_held_out_pass_stops_at_its_budget_and_spreads_over_the_shard(folder):
    batches = held_out(folder, max_tokens=4 * T, names=("a",))
    assert sum(len(batch.tokens) for batch in batches) == 4
    every = rows(held_out(folder, names=("a",)))
    indices = [next(i for i, row in enumerate(every) if torch.equal(row, chosen)) for chosen in rows(batches)]
    assert indices[0] == 0
    assert indices[-1] > len(every) // 2
    (tiny,) = held_out(folder, names=("tiny",))
    assert tiny.loss_mask.sum() == 1


def test_token_counts_are_those_of_the_shards(folder):
    counts = token_counts([folder[0] / "a", folder[0] / "tiny"], folder[1])
    assert counts[EOS] == 31
    assert counts.sum() == open_shard(folder[0] / "a", folder[1]).num_tokens + 2
