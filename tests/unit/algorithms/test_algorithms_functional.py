"""Losses of single tokens against numbers worked out by hand."""

import math

import pytest
import torch

from rlpt.algorithms import functional


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "gradient", "clipped"),
    [
        (1.0, 2.0, 2.0, 2.0, False),
        (1.1, 2.0, 2.2, 2.0, False),
        (1.5, 2.0, 2.56, 0.0, True),  # 1.28 * 2: cut, it has grown enough
        (0.5, 2.0, 1.0, 2.0, False),  # shrunk although it was good: pulled back in full
        (0.5, -1.0, -0.8, 0.0, True),
        (1.5, -1.0, -1.5, -1.0, False),
    ],
)
def test_clipped_surrogate(ratio, advantage, value, gradient, clipped):
    rho, a = torch.tensor([ratio], requires_grad=True), torch.tensor([advantage])
    result = functional.clipped_surrogate(rho, a, 0.2, 0.28)
    result.sum().backward()
    assert result.item() == pytest.approx(value)
    assert rho.grad.item() == pytest.approx(gradient)
    assert functional.is_clipped(rho, a, 0.2, 0.28).item() is clipped


def test_kl_estimators_of_one_sample():
    ratio = torch.tensor([math.log(2.0), 0.0])
    assert functional.kl_estimate(ratio, "k1").tolist() == pytest.approx([-math.log(2), 0])
    assert functional.kl_estimate(ratio, "k2").tolist() == pytest.approx([math.log(2) ** 2 / 2, 0])
    assert functional.kl_estimate(ratio, "k3").tolist() == pytest.approx([1 - math.log(2), 0])


def test_k1_and_k3_are_unbiased():
    """Summed over the whole distribution q, both give KL(q || p) to rounding."""
    generator = torch.Generator().manual_seed(3)
    log_q, log_p = (torch.randn(6, dtype=torch.float64, generator=generator).log_softmax(0) for _ in range(2))
    kl = (log_q.exp() * (log_q - log_p)).sum()
    assert kl > 0.1
    for estimator in ("k1", "k3"):
        torch.testing.assert_close((log_q.exp() * functional.kl_estimate(log_p - log_q, estimator)).sum(), kl)


def test_expected_gradients_of_kl_estimators_as_losses():
    """k1: none; k2: that of KL(q || p); k3: that of KL(p || q). The samples' weights q carry no gradient."""
    generator = torch.Generator().manual_seed(3)
    logits, other = torch.randn(2, 6, dtype=torch.float64, generator=generator)
    log_p, logits = other.log_softmax(0), logits.requires_grad_()

    def gradient(loss):
        return torch.autograd.grad(loss(logits.log_softmax(0)), logits)[0]

    def of_estimator(name):
        return gradient(lambda log_q: (log_q.detach().exp() * functional.kl_estimate(log_p - log_q, name)).sum())

    reverse = gradient(lambda log_q: (log_q.exp() * (log_q - log_p)).sum())
    forward = gradient(lambda log_q: (log_p.exp() * (log_p - log_q)).sum())
    assert (reverse - forward).abs().max() > 0.05
    torch.testing.assert_close(of_estimator("k1"), torch.zeros_like(logits))
    torch.testing.assert_close(of_estimator("k2"), reverse)
    torch.testing.assert_close(of_estimator("k3"), forward)


def test_log_ratio_is_zero_off_the_mask_and_its_exponential_is_finite():
    new, old = torch.tensor([-1.0, torch.nan, 0.0]), torch.tensor([-2.0, 0.0, -300.0])
    ratio = functional.log_ratio(new, old, torch.tensor([True, False, True]))
    assert ratio.tolist() == [1.0, 0.0, functional.MAX_LOG_RATIO]
    assert ratio.exp().isfinite().all()


def test_weighted_log_likelihood_keeps_its_weight_out_of_the_gradient():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    weight = torch.tensor([0.5, 3.0], requires_grad=True)
    value = functional.weighted_log_likelihood(logprobs, torch.tensor([2.0, -1.0]), weight)
    value.sum().backward()
    assert value.tolist() == [-1.0, 6.0]
    assert logprobs.grad.tolist() == [1.0, -3.0]
    assert weight.grad is None


SEGMENTS = torch.tensor([[0, 0, 0, 1, -1], [0, 1, 1, 1, 1]])
MASK = torch.tensor([[True, False, True, True, False], [True, True, True, False, True]])
VALUES = torch.tensor([[1.0, torch.nan, 3.0, 5.0, 9.0], [7.0, 1.0, 2.0, 100.0, 6.0]])


def test_segment_mean_is_over_the_loss_tokens_of_a_rows_segment():
    mean = functional.segment_mean(VALUES, SEGMENTS, MASK)
    assert mean.tolist() == [[2.0, 0.0, 2.0, 5.0, 0.0], [7.0, 3.0, 3.0, 0.0, 3.0]]


def test_segment_mean_of_rows_without_any_segment():
    empty = torch.full((2, 3), -1)
    assert not functional.segment_mean(torch.ones(2, 3), empty, torch.zeros(2, 3, dtype=torch.bool)).any()


def test_sequence_log_ratio_has_the_sequences_value_and_the_tokens_gradient():
    drift = torch.where(MASK, VALUES, 0).requires_grad_()
    ratio = functional.sequence_log_ratio(drift, SEGMENTS, MASK)
    assert ratio[1].tolist() == [7.0, 3.0, 3.0, 0.0, 3.0]
    (ratio[1] * torch.tensor([1.0, 2.0, 3.0, 0.0, 5.0])).sum().backward()
    assert drift.grad[1].tolist() == [1.0, 2.0, 3.0, 0.0, 5.0]


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient"),
    [
        (0.6, 0.5, 1.0, 0.08, -0.4),  # within the clip: the plain error
        (0.9, 0.5, 1.0, 0.045, 0.0),  # moved .4 towards the return: error of .7, no gradient
        (0.1, 0.5, 1.0, 0.405, -0.9),  # moved away: pulled back in full
        (1.5, 0.5, 1.0, 0.125, 0.5),  # went too far: the larger error is its own
    ],
)
def test_clipped_value_loss(value, old, target, loss, gradient):
    values = torch.tensor([value], requires_grad=True)
    result = functional.clipped_value_loss(values, torch.tensor([old]), torch.tensor([target]), 0.2)
    result.sum().backward()
    assert result.item() == pytest.approx(loss, rel=1e-5)
    assert values.grad.item() == pytest.approx(gradient)


def test_value_loss_without_a_clip():
    values = torch.tensor([0.9], requires_grad=True)
    result = functional.clipped_value_loss(values, torch.tensor([0.5]), torch.tensor([1.0]), 0)
    assert result.item() == pytest.approx(0.005)
    assert torch.autograd.grad(result.sum(), values)[0].item() == pytest.approx(-0.1)


def test_soft_cross_entropy_leaves_out_what_has_no_weight():
    logprobs = torch.tensor([[-1.0, -2.0, -torch.inf]], requires_grad=True)
    loss = functional.soft_cross_entropy(logprobs, torch.tensor([[0.25, 0.75, 0.0]]))
    loss.sum().backward()
    assert loss.tolist() == [0.25 + 1.5]
    assert logprobs.grad.tolist() == [[-0.25, -0.75, 0.0]]
