"""The sampler: kept sets by hand, exact renormalisation, draws that follow the probabilities, keyed noise."""

import math

import numpy as np
import pytest
import torch

from rlpt.rollout.sampling import certainty, draw, kept_logprobs, keyed_uniform

P = [0.4, 0.3, 0.15, 0.1, 0.05]


def restricted(logits, temperature=1.0, legal=None, top_k=0, top_p=1.0):
    """Log-probs [V] of one row."""
    legal = None if legal is None else torch.tensor([[i in legal for i in range(len(logits))]])
    return kept_logprobs(
        torch.tensor([logits]), torch.tensor([temperature]), legal, torch.tensor([top_k]), torch.tensor([top_p])
    )[0]


def kept(logprobs):
    return (logprobs > -torch.inf).nonzero().squeeze(1).tolist()


LOGITS = [math.log(p) for p in P]


def test_certainty_is_the_divergence_of_the_kept_set_from_uniform():
    """KL(U || p) = sum_k 1/K log(1/K / p_k): 0 for uniform or a single token, by hand for (.8, .2) and the whole."""
    rows = torch.tensor(
        [[0.25, 0.25, 0.25, 0.25], [0.8, 0.2, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.4, 0.3, 0.2, 0.1]]
    ).log()
    two = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    four = sum(0.25 * math.log(0.25 / p) for p in (0.4, 0.3, 0.2, 0.1))
    assert certainty(rows).tolist() == pytest.approx([0.0, two, 0.0, four], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 99}, [0, 1, 2, 3, 4]),
        ({"top_p": 0.39}, [0]),
        ({"top_p": 0.41}, [0, 1]),  # the token that crosses the bound stays
        ({"top_p": 0.86}, [0, 1, 2, 3]),
        ({"top_p": 1e-6}, [0]),  # never empty
        ({"legal": {1, 3, 4}}, [1, 3, 4]),
        ({"legal": {1, 3, 4}, "top_k": 2}, [1, 3]),  # top-k counts legal tokens only
        ({"legal": {1, 3, 4}, "top_p": 0.6}, [1]),  # 0.3 / 0.45 = 0.67 of the legal mass
        ({"legal": {1, 3, 4}, "top_p": 0.7}, [1, 3]),
        ({"top_k": 3, "top_p": 0.5}, [0, 1]),  # 0.4 / 0.85 = 0.47 of what top-k left
        ({"top_k": 1, "legal": {4}}, [4]),
    ],
)
def test_kept_set_and_renormalisation(options, wanted):
    found = restricted(LOGITS, **options)
    assert kept(found) == wanted
    mass = sum(P[i] for i in wanted)
    assert found[wanted].exp().tolist() == pytest.approx([P[i] / mass for i in wanted], abs=1e-6)


def test_temperature_comes_before_the_filters():
    """At temperature 2 probabilities go as their square roots."""
    roots = np.sqrt(P) / np.sqrt(P).sum()
    assert restricted(LOGITS, temperature=2.0).exp().tolist() == pytest.approx(roots.tolist(), abs=1e-6)
    assert kept(restricted(LOGITS, temperature=2.0, top_p=float(roots[0]) + 0.01)) == [0, 1]
    assert kept(restricted(LOGITS, temperature=0.25, top_p=0.9)) == [0, 1]
    assert restricted(LOGITS, temperature=0.0).tolist() == restricted(LOGITS).tolist()  # greedy reads as 1


def test_ties():
    even = [0.0, 0.0, 0.0, -1.0]
    assert kept(restricted(even, top_k=1)) == [0, 1, 2]  # all that tie with the last kept one stay
    share = math.exp(0) / (3 + math.exp(-1))
    assert kept(restricted(even, top_p=share * 1.5)) == [0, 1]  # in a nucleus the lower id goes first


def test_rows_have_their_own_options():
    logits = torch.tensor([LOGITS] * 4)
    legal = torch.ones(4, 5, dtype=torch.bool)
    legal[3, :3] = False
    found = kept_logprobs(
        logits,
        torch.tensor([1.0, 1.0, 2.0, 1.0]),
        legal,
        torch.tensor([0, 2, 0, 1]),
        torch.tensor([1.0, 1.0, 0.2, 1.0]),
    )
    assert [kept(row) for row in found] == [[0, 1, 2, 3, 4], [0, 1], [0], [3]]


def test_draws_follow_the_probabilities():
    """20,000 keyed draws: each count within 4 standard deviations; tokens outside the kept set never."""
    n = 20_000
    noise = torch.from_numpy(keyed_uniform(np.full(n, 9), np.arange(n), np.full(n, 3)))
    logprobs = restricted([*LOGITS, 5.0], legal={0, 1, 2, 3, 4}).expand(n, -1)
    counts = np.bincount(draw(logprobs, noise, torch.zeros(n, dtype=torch.bool)), minlength=6)
    for count, p in zip(counts, [*P, 0.0], strict=True):
        assert abs(count - n * p) <= 4 * math.sqrt(n * p * (1 - p)), counts


def test_draws_at_the_ends_of_the_interval_stay_in_the_kept_set():
    logprobs = torch.log(torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]])).expand(4, -1)
    uniform = torch.tensor([0.0, 0.2499, 0.2501, 1 - 2.0**-53], dtype=torch.float64)
    assert draw(logprobs, uniform, torch.zeros(4, dtype=torch.bool)).tolist() == [1, 1, 3, 3]
    assert draw(logprobs, uniform, torch.ones(4, dtype=torch.bool)).tolist() == [3] * 4  # greedy


def test_draws_read_only_the_columns_that_may_be_kept():
    """Same tokens and certainty as from whole rows of 300, where rows keep 1 to 40 of their legal ids."""
    generator = torch.Generator().manual_seed(3)
    rows, vocabulary = 200, 300
    table = torch.rand(rows, vocabulary, generator=generator) < torch.linspace(0.01, 0.2, rows)[:, None]
    table[:, 7] = True
    columns = (~table).int().argsort(dim=1, stable=True)[:, : int(table.sum(1).max())]
    uniform = torch.rand(rows, generator=generator, dtype=torch.float64)
    uniform[:2] = torch.tensor([0.0, 1 - 2.0**-53])
    greedy = torch.arange(rows) % 5 == 4
    for top_k in (None, torch.arange(rows) % 40):
        logprobs = kept_logprobs(torch.randn(rows, vocabulary, generator=generator), None, table, top_k, None)
        found = draw(logprobs, uniform, greedy, columns=columns)
        assert found.tolist() == draw(logprobs, uniform, greedy).tolist()
        assert len(set(found.tolist())) > 50
        if top_k is None:
            assert certainty(logprobs, size=table.sum(1)).tolist() == certainty(logprobs).tolist()


def test_noise_is_uniform_and_belongs_to_seed_key_and_position():
    n = 20_000
    zeros, counter = np.zeros(n, np.uint64), np.arange(n, dtype=np.uint64)
    streams = [keyed_uniform(*words) for words in ((counter, zeros, zeros), (zeros, counter, zeros))]
    streams.append(keyed_uniform(zeros, zeros, counter))
    for values in streams:
        assert 0 <= values.min() < values.max() < 1
        assert len(np.unique(values)) == n
        counts = np.histogram(values, 10, (0, 1))[0]
        assert np.abs(counts - n / 10).max() < 4 * math.sqrt(n * 0.09)
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / math.sqrt(n)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(streams[one], streams[other])[0, 1]) < 4 / math.sqrt(n)


def test_noise_does_not_depend_on_the_batch():
    keys = np.array([3, 2**63 - 1, 2**64 - 1], np.uint64)
    together = keyed_uniform(np.full(3, 5, np.uint64), keys, np.full(3, 7))
    alone = [keyed_uniform(np.array([5]), keys[i : i + 1], np.array([7]))[0] for i in range(3)]
    assert together.tolist() == alone
    assert keyed_uniform(np.array([5]), np.array([3]), np.array([8]))[0] != alone[0]
