"""Loss and gradient in one pass over the vocabulary: the gradient of log_softmax, whatever was foretold."""

import pytest
import torch
from helpers.output_layer import (
    ROWS,
    TORCH,
    VOCAB,
    cpu_backends,
    exact_heads,
    inputs,
    legal_sets,
    naive,
    slopes_of_weighted,
    weighted,
)

from rlpt.kernels import head_torch
from rlpt.kernels.linear_logprob import LinearLogprob, linear_logprob


class Products:
    """Counts the backend's passes over the vocabulary."""

    def __init__(self, monkeypatch):
        self.logits = 0
        plain = head_torch.TorchHead._product

        def counted(head, rows):
            self.logits += len(rows.hidden)
            return plain(head, rows)

        monkeypatch.setattr(head_torch.TorchHead, "_product", counted)


def leaves(hidden, weight):
    return [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]


def assert_same_gradients(ours, theirs, exact=TORCH):
    for got, want in zip(ours, theirs):
        assert want.grad.abs().max() > 0.1
        exact.gradients_close(got.grad, want.grad)


@exact_heads
@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("masked", [False, True])
def test_one_pass_equals_log_softmax(chunk_size, temperature, masked, exact, monkeypatch):
    hidden, weight, labels, candidates = inputs(dtype=exact.dtype)
    legal = legal_sets(labels) if masked else None
    table, index = legal or (None, None)
    ours, theirs = leaves(hidden, weight), leaves(hidden.double(), weight.double())
    products = Products(monkeypatch)
    result = linear_logprob(
        *ours, labels, vocab_start=0, vocab_size=VOCAB, temperature=temperature, legal_table=table, legal_index=index,
        chunk_size=chunk_size, candidates=candidates, slopes=slopes_of_weighted(ROWS), backend=exact.backend,
    )  # fmt: skip
    expected = naive(*theirs, labels, candidates, temperature, legal)
    for got, want in zip((result.logprobs, result.entropy, result.candidate_logprobs), expected):
        exact.figures_close(got, want)
    weighted(result.logprobs, result.entropy, result.candidate_logprobs).backward()
    weighted(*expected).backward()
    assert_same_gradients(ours, theirs, exact)
    assert ours[1].grad[VOCAB:].abs().max() == 0, "padding columns must not learn"
    assert products.logits == ROWS, "the logits were made more than once"


def test_a_wrong_forecast_costs_a_pass_and_nothing_else(monkeypatch):
    hidden, weight, labels, _ = inputs()
    ours, theirs = leaves(hidden, weight), leaves(hidden, weight)
    products = Products(monkeypatch)

    def wrong(at, figures):
        return LinearLogprob(torch.ones_like(figures.logprobs), torch.zeros_like(figures.entropy))

    result = linear_logprob(*ours, labels, vocab_start=0, vocab_size=VOCAB, chunk_size=3, slopes=wrong)
    weighted(result.logprobs, result.entropy).backward()
    weighted(*naive(*theirs, labels)[:2]).backward()
    assert_same_gradients(ours, theirs)
    assert products.logits == 2 * ROWS


def test_a_second_backward_is_right_too():
    hidden, weight, labels, _ = inputs()
    ours, theirs = leaves(hidden, weight), leaves(hidden, weight)
    result = linear_logprob(*ours, labels, vocab_start=0, vocab_size=VOCAB, slopes=slopes_of_weighted(ROWS))
    for factor in (1.0, -3.0):
        (factor * weighted(result.logprobs, result.entropy)).backward(retain_graph=True)
        (factor * weighted(*naive(*theirs, labels)[:2])).backward()
    assert_same_gradients(ours, theirs)


@cpu_backends
def test_a_clipped_ratio_has_its_gradient_in_one_pass(backend, monkeypatch):
    """PPO's slopes are a function of the chunk's own log-probs; rows that it cuts add nothing and cost nothing."""
    hidden, weight, labels, _ = inputs(rows=40, dtype=torch.float32)
    ours, theirs = leaves(hidden, weight), leaves(hidden, weight)
    old = naive(hidden, weight, labels)[0] + torch.linspace(-0.6, 0.6, 40)
    advantages = torch.linspace(1, 2, 40)

    def loss(logprobs, rows=slice(None)):
        ratio = (logprobs - old[rows]).exp()
        return -torch.minimum(ratio * advantages[rows], ratio.clamp(0.8, 1.2) * advantages[rows]).sum()

    def slopes(at, figures):
        with torch.enable_grad():
            logprobs = figures.logprobs.detach().requires_grad_()
            (found,) = torch.autograd.grad(loss(logprobs, at), logprobs)
        assert (found == 0).any() or at.start > 0
        return LinearLogprob(found, torch.zeros_like(found))

    products = Products(monkeypatch)
    options = {"vocab_start": 0, "vocab_size": VOCAB, "chunk_size": 11, "slopes": slopes, "backend": backend}
    result = linear_logprob(*ours, labels, **options)
    (loss(result.logprobs) / 40).backward()
    (loss(naive(*theirs, labels)[0]) / 40).backward()
    for got, want in zip(ours, theirs):
        assert want.grad.abs().max() > 1e-2
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-5, atol=1e-6)
    assert products.logits == 40


@exact_heads
def test_rows_without_a_gradient_are_not_computed_again(exact, monkeypatch):
    hidden, weight, labels, _ = inputs(dtype=exact.dtype)
    ours, theirs = leaves(hidden, weight), leaves(hidden.double(), weight.double())
    result = linear_logprob(*ours, labels, vocab_start=0, vocab_size=VOCAB, chunk_size=2, backend=exact.backend)
    products = Products(monkeypatch)
    result.logprobs[[1, 4]].sum().backward()
    naive(*theirs, labels)[0][[1, 4]].sum().backward()
    assert_same_gradients(ours, theirs, exact)
    assert products.logits == 2


@exact_heads
def test_frozen_weights_and_no_rows(exact):
    hidden, weight, labels, _ = inputs(dtype=exact.dtype)
    ours, theirs = hidden.clone().requires_grad_(), hidden.double().clone().requires_grad_()
    options = {"vocab_start": 0, "vocab_size": VOCAB, "slopes": slopes_of_weighted(ROWS), "backend": exact.backend}
    result = linear_logprob(ours, weight, labels, **options)
    weighted(result.logprobs, result.entropy).backward()
    weighted(*naive(theirs, weight.double(), labels)[:2]).backward()
    exact.gradients_close(ours.grad, theirs.grad)
    hidden, weight, labels, _ = inputs(rows=0, dtype=exact.dtype)
    hidden.requires_grad_()
    result = linear_logprob(hidden, weight, labels, **(options | {"slopes": slopes_of_weighted(0)}))
    (result.logprobs.sum() + result.entropy.sum()).backward()
    assert result.logprobs.shape == (0,)
    assert hidden.grad.shape == hidden.shape


def test_without_gradients_nothing_is_foretold():
    hidden, weight, labels, _ = inputs()
    seen = []
    with torch.no_grad():
        linear_logprob(hidden, weight, labels, vocab_start=0, vocab_size=VOCAB, slopes=slopes_of_weighted(ROWS, seen))
    assert not seen
