"""The output layer's compiled passes: odd widths, wide vocabularies, and logits that are no ordinary numbers."""

import pytest
import torch
from helpers.output_layer import COMPILED, PADDED, VOCAB, inputs, legal_sets, with_compiler

from rlpt.kernels.backend import choose_head
from rlpt.kernels.compiled_head import CompiledHead, can_compile
from rlpt.kernels.linear_logprob import LinearLogprob, linear_logprob
from rlpt.kernels.vocabulary_shard import Shard

pytestmark = with_compiler


def problem(rows, hidden, vocabulary, shift=0.0):
    """Logits of standard deviation 3 about `shift`, one in five of them illegal, labels legal."""
    generator = torch.Generator().manual_seed(vocabulary)
    states, weight = (torch.randn(n, hidden, generator=generator) for n in (rows, vocabulary))
    weight = torch.cat([weight * 3 * hidden**-0.5, torch.full((vocabulary, 1), shift)], 1)
    table = torch.rand(3, vocabulary, generator=generator) > 0.2
    index = torch.arange(rows) % 3
    labels = torch.randint(vocabulary, (rows,), generator=generator)
    table[index, labels] = True
    return torch.cat([states, torch.ones(rows, 1)], 1), weight, labels, table, index


def figures(hidden, weight, labels, table, index, backend, one_pass=True):
    """Log-probs, entropy, and the gradients of a loss in both."""
    leaves = [one.clone().requires_grad_() for one in (hidden, weight)]

    def slopes(at, found):
        return LinearLogprob(-torch.ones_like(found.logprobs), -torch.ones_like(found.entropy))

    result = linear_logprob(
        *leaves, labels, vocab_start=0, vocab_size=len(weight), legal_table=table, legal_index=index,
        slopes=slopes if one_pass else None, backend=backend,
    )  # fmt: skip
    (-result.logprobs - result.entropy).sum().backward()
    return [result.logprobs, result.entropy, *(leaf.grad for leaf in leaves)]


def exact_figures(hidden, weight, *rest):
    return figures(hidden.double(), weight.double(), *rest, "torch")


@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 31, 33, 1023, 1024, 1025, 2049, 3100])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("one_pass", [False, True])
def test_every_width_has_its_tail(columns, masked, one_pass):
    hidden, weight, labels, table, index = problem(5, 8, columns)
    sets = (table, index) if masked else (None, None)
    expected = exact_figures(hidden, weight, labels, *sets)
    for got, want in zip(figures(hidden, weight, labels, *sets, "compiled", one_pass), expected, strict=True):
        COMPILED.gradients_close(got, want)


@pytest.mark.parametrize("shift", [0.0, 20.0, -20.0])
@pytest.mark.parametrize("masked", [False, True])
def test_256k_columns_are_as_exact_as_by_torch(shift, masked):
    """Logits at +-20 are rounded to 2e-6 before any pass; the passes' own sums may add no more than that."""
    hidden, weight, labels, table, index = problem(3, 16, 1 << 18, shift)
    sets = (table, index) if masked else (None, None)
    expected = exact_figures(hidden, weight, labels, *sets)
    ours, theirs = (figures(hidden, weight, labels, *sets, backend) for backend in ("compiled", "torch"))
    for got, reference, want in zip(ours, theirs, expected, strict=True):
        assert want.abs().max() > 0.1
        error, bound = ((one - want).abs().max() for one in (got, reference))
        assert error <= 2 * bound + 2e-6


def test_logits_far_below_the_maximum_count_as_nothing():
    hidden, weight, labels = torch.ones(1, 1), torch.zeros(40, 1), torch.tensor([3])
    weight[3], weight[5], weight[7] = 100.0, -3e38, -torch.inf
    logprobs, entropy, *gradients = figures(hidden, weight, labels, None, None, "compiled")
    assert logprobs == 0
    assert entropy == 0
    assert gradients[1].abs().max() == 0


def test_what_is_no_number_stays_none():
    hidden, weight, labels, table, index = problem(4, 8, 100)
    hidden[1, 0], hidden[2, 0] = torch.nan, torch.inf
    table[index[3]] = False
    result = linear_logprob(hidden[:3], weight, labels[:3], vocab_start=0, vocab_size=100, backend="compiled")
    assert result.logprobs.isnan().tolist() == [False, True, True]
    assert result.entropy.isnan().tolist() == [False, True, True]
    result = linear_logprob(
        hidden[3:], weight, labels[3:], vocab_start=0, vocab_size=100, legal_table=table, legal_index=index[3:],
        backend="compiled",
    )  # fmt: skip
    assert result.logprobs.isnan().all(), "a row without a legal id"


@pytest.mark.parametrize("wrong", [-1, 8])
def test_an_index_outside_the_legal_table_is_refused(wrong):
    hidden, weight, labels, _ = inputs(dtype=torch.float32)
    table, index = legal_sets(labels)
    index[2] = wrong
    with pytest.raises(IndexError, match="legal_index"):
        linear_logprob(hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, legal_table=table, legal_index=index)


def test_threads_change_nothing():
    hidden, weight, *rest = problem(64, 8, 1000)
    threads, found = torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(figures(hidden, weight, *rest, "compiled")[:2])
    torch.set_num_threads(threads)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)  # their products may differ


def test_it_is_what_float32_on_a_cpu_gets():
    shard = Shard(0, VOCAB, 1.0, None)
    assert type(choose_head("auto", torch.zeros(PADDED, 2), shard, None)) is CompiledHead
    assert type(choose_head("auto", torch.zeros(PADDED, 2, dtype=torch.float64), shard, None)) is not CompiledHead
    assert not can_compile(torch.zeros(1, device="meta"))
