"""Tokens drawn from shards are those drawn from whole rows. All ranks' shards are in one process: what they exchange is
stacked and added up here, and travels in tests/distributed."""

from collections import namedtuple

import numpy as np
import pytest
import torch

from rlpt.distributed.mesh import Axis
from rlpt.rollout.requests import Requests
from rlpt.rollout.sampling import certainty, draw, kept_logprobs, restricted
from rlpt.rollout.shard_sampling import (
    BLOCK,
    NARROW,
    can_draw_from_shards,
    draw_from_shards,
    merge,
    open_shard,
    propose,
)
from rlpt.types import SamplingParams

ROWS = 60
EDGES = (0.0, 2.0**-53, 0.5, 1 - 2.0**-53)
CPU = torch.device("cpu")
Simulated = namedtuple("Simulated", "tokens logprobs log_sum total owners")
# (vocabulary, columns of a shard, ranks)
LAYOUTS = {
    "one rank": (90, 96, 1),
    "two ranks": (90, 48, 2),
    "three ranks": (90, 32, 3),
    "a shard of padding alone": (90, 32, 4),
    "two shards of padding, one with a single id": (5, 2, 4),
    "one id": (1, 1, 1),
    "one id, padded": (1, 4, 3),
    "whole blocks": (4 * BLOCK, BLOCK, 4),
    "blocks and a rest": (700, 3 * BLOCK, 2),
    "wide rows": (9001, 36 * BLOCK, 2),
    "wide rows, four ranks": (9001, 20 * BLOCK, 4),
}


def filters_of(params, vocab_size):
    """Rows in turns as `params` say."""
    rows = [params[at % len(params)] for at in range(ROWS)]
    return Requests([[1]] * ROWS, rows, range(ROWS), vocab_size, CPU).filters(np.arange(ROWS))


def ways_to_sample(vocab_size, columns):
    """By name: what the rows of a batch ask for, among it sets of one shard, of a single id, of ends of shards."""
    every_third = tuple(range(0, vocab_size, 3))
    last_shard = tuple(range((vocab_size - 1) // columns * columns, vocab_size))
    ends = tuple({0, min(columns, vocab_size) - 1, min(columns, vocab_size - 1), vocab_size - 1})
    sets = [every_third, last_shard, ends, (vocab_size - 1,), None]
    heats = [1.0, 0.0, 0.3, 2.5]
    return {
        "plain": [SamplingParams()],
        "greedy": [SamplingParams(temperature=0.0)],
        "mixed temperatures": [SamplingParams(temperature=heat) for heat in heats],
        "legal sets": [SamplingParams(legal_ids=ids) for ids in sets],
        "one legal set": [SamplingParams(legal_ids=last_shard)],
        "all together": [SamplingParams(temperature=heat, legal_ids=ids) for heat in heats for ids in sets],
    }


def random_rows(vocab_size, columns, ranks, seed=0):
    """Logits [ROWS, V], each rank's part of them with padding that would be drawn if it were looked at, and uniform
    numbers, the ends of the interval among them."""
    generator = torch.Generator().manual_seed(seed + vocab_size)
    logits = 3 * torch.randn(ROWS, vocab_size, generator=generator)
    padded = torch.full((ROWS, columns * ranks), 50.0)
    padded[:, :vocab_size] = logits
    uniform = torch.rand(ROWS, generator=generator, dtype=torch.float64)
    uniform[: len(EDGES) * 5] = torch.tensor(EDGES, dtype=torch.float64).repeat_interleave(5)
    return logits, list(padded.split(columns, dim=1)), uniform


def simulate(parts, filters, uniform, vocab_size):
    """What the ranks that hold `parts` draw."""
    shards = [open_shard(part, filters, vocab_size, rank) for rank, part in enumerate(parts)]
    merged = merge(torch.stack([one.statistics for one in shards])[: -(-vocab_size // parts[0].shape[1])])
    told = torch.stack([propose(one, merged, uniform, filters.greedy, rank) for rank, one in enumerate(shards)])
    tokens, logprobs = told.sum(0)
    return Simulated(tokens.long(), logprobs, merged.log_sum, merged.total, (told != 0).any(1))


def distance(logprobs, tokens, uniform):
    """How far a uniform number is from the token's part of the cumulative distribution [n]."""
    probabilities = logprobs.exp()
    above = probabilities.cumsum(-1).gather(1, tokens[:, None]).squeeze(1)
    below = above - probabilities.gather(1, tokens[:, None]).squeeze(1)
    return torch.maximum(below - uniform, uniform - above).clamp(min=0)


@pytest.mark.parametrize("way", ways_to_sample(1, 1))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_and_figures_are_those_of_whole_rows(layout, way):
    """Whole rows are renormalised in float64, so that 1e-6 is what our sums may be off. The uniform number just under 1
    meets a tail of tokens of less than 1e-7 in all, of which the rounding of float32 weights picks one."""
    vocab_size, columns, ranks = LAYOUTS[layout]
    filters = filters_of(ways_to_sample(vocab_size, columns)[way], vocab_size)
    for seed in range(3):
        logits, parts, uniform = random_rows(vocab_size, columns, ranks, seed)
        found = simulate(parts, filters, uniform, vocab_size)
        scaled = restricted(logits, filters.temperature, None)
        rows = kept_logprobs(scaled.double(), None, filters.legal, None, None)
        in_float = kept_logprobs(scaled, None, filters.legal, None, None)
        for logprobs in (rows, in_float):
            other = found.tokens != draw(logprobs, uniform, filters.greedy, filters.is_whole)
            assert (distance(rows, found.tokens, uniform)[other] < 1e-7).all(), "but by the rounding of weights"
            assert not other[len(EDGES) * 5 :].any()
        chosen = rows.gather(1, found.tokens[:, None]).squeeze(1)
        assert (found.logprobs - chosen).abs().max() < 1e-6
        size = torch.full((ROWS,), vocab_size) if filters.num_legal is None else filters.num_legal
        ours = found.log_sum - found.total / size - size.double().log()
        assert (ours - certainty(rows, filters.is_whole)).abs().max() < 1e-6
        assert (found.owners.sum(0) <= 1).all(), "one shard holds a token"
    if vocab_size > 5 and way in ("plain", "mixed temperatures"):
        assert found.logprobs.std() > 0.1
        assert len(set(found.tokens.tolist())) > 8
        assert found.owners.any(1).sum() == -(-vocab_size // columns), "tokens of every shard are drawn"


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_of_equal_logits_greedy_rows_take_the_lowest_id(ranks):
    """Within a shard, and in several of them."""
    generator = torch.Generator().manual_seed(ranks)
    logits = torch.randint(0, 3, (ROWS, 24), generator=generator).float()
    filters = filters_of([SamplingParams(temperature=0.0)], 24)
    uniform = torch.rand(ROWS, generator=generator, dtype=torch.float64)
    found = simulate(list(logits.split(24 // ranks, dim=1)), filters, uniform, 24)
    assert found.tokens.tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_token_of_no_probability_is_never_drawn(ranks):
    """Shards whose mass is lost beside the others' in float64, and uniform numbers at the very ends of shards."""
    logits = torch.full((ROWS, 64), -1000.0)
    logits[:, [20, 40]] = 0.0
    uniform = torch.tensor([*EDGES, 0.5 - 2.0**-53] * (ROWS // 5), dtype=torch.float64)
    filters = filters_of([SamplingParams()], 64)
    found = simulate(list(logits.split(64 // ranks, dim=1)), filters, uniform, 64)
    assert found.tokens.tolist() == [20, 20, 40, 40, 20] * (ROWS // 5)
    assert torch.allclose(found.logprobs, torch.tensor(0.5, dtype=torch.float64).log())


@pytest.mark.parametrize("layout", ["a shard of padding alone", "wide rows, four ranks"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rows_that_are_not_numbers_draw_an_id_of_the_vocabulary(layout, bad):
    """Their log-probs tell the trainer; the rows beside them are drawn as ever."""
    vocab_size, columns, ranks = LAYOUTS[layout]
    _, parts, uniform = random_rows(vocab_size, columns, ranks)
    filters = filters_of([SamplingParams(), SamplingParams(temperature=0.0)], vocab_size)
    good = simulate(parts, filters, uniform, vocab_size)
    spoilt = [part.clone() for part in parts]
    spoilt[1][::3, 1] = bad
    found = simulate(spoilt, filters, uniform, vocab_size)
    assert ((found.tokens >= 0) & (found.tokens < vocab_size)).all()
    assert not found.logprobs[::3].isfinite().any()
    for row in set(range(ROWS)) - set(range(0, ROWS, 3)):
        assert found.tokens[row] == good.tokens[row]
        assert found.logprobs[row] == good.logprobs[row]


def test_what_a_rank_of_its_own_draws_is_what_parts_of_it_draw():
    """The whole of it, through an axis."""
    vocab_size, columns, ranks = LAYOUTS["blocks and a rest"]
    logits, parts, uniform = random_rows(vocab_size, columns, ranks)
    filters = filters_of(ways_to_sample(vocab_size, columns)["all together"], vocab_size)
    tokens, figures = draw_from_shards(logits, filters, uniform, vocab_size, Axis(0, 1, None))
    found = simulate(parts, filters, uniform, vocab_size)
    assert tokens.tolist() == found.tokens.tolist()
    assert (figures[0] - found.logprobs).abs().max() < 1e-6
    rows = kept_logprobs(logits, filters.temperature, filters.legal, None, None)
    assert (figures[1] - certainty(rows, filters.is_whole)).abs().max() < 4e-6  # of up to 16, in float32
    assert figures.dtype == torch.float32


def test_rows_are_gathered_where_they_need_an_order_or_are_narrow():
    wide, narrow = torch.zeros(ROWS, NARROW), torch.zeros(ROWS, NARROW - 1)
    plain = filters_of([SamplingParams(temperature=0.5, legal_ids=(3,)), SamplingParams()], 2 * NARROW)
    assert can_draw_from_shards(wide, plain, Axis(0, 2, None))
    assert not can_draw_from_shards(narrow, plain, Axis(0, 2, None))
    assert not can_draw_from_shards(wide, plain, Axis(0, 1, None))
    for params in (SamplingParams(top_k=2), SamplingParams(top_p=0.5)):
        ordered = filters_of([SamplingParams(), params], 2 * NARROW)
        assert not can_draw_from_shards(wide, ordered, Axis(1, 2, None))
