"""Estimators and losses against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from rlpt.algorithms import functional

REWARDS = np.array([1.0, 0.0, 0.5, 2.0, 4.0])
PEERS = np.array([7, 7, 7, -3, -3])
ESTIMATORS = [
    functional.group_mean_baseline,
    functional.leave_one_out,
    lambda rewards, peers: functional.group_normalise(rewards, peers, divide_by_std=True),
]


def test_group_mean_baseline():
    assert functional.group_mean_baseline(REWARDS, PEERS) == pytest.approx([0.5, -0.5, 0, -1, 1])


def test_leave_one_out():
    assert functional.leave_one_out(REWARDS, PEERS) == pytest.approx([0.75, -0.75, 0, -2, 2])


def test_group_normalise():
    deviation = math.sqrt(1 / 6)
    expected = [0.5 / deviation, -0.5 / deviation, 0, -1, 1]
    assert functional.group_normalise(REWARDS, PEERS, True) == pytest.approx(expected, rel=1e-5)
    assert functional.group_normalise(REWARDS, PEERS, False) == pytest.approx([0.5, -0.5, 0, -1, 1])


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_equal_rewards_give_exactly_zero(estimator, size):
    """0.1 + 0.1 + 0.1 is not 0.3, and dividing what is left over by its own size would make it a whole advantage."""
    for reward in (0.1, 1 / 3, -0.7, 1e9):
        assert not estimator(np.full(size, reward), np.zeros(size, np.int64)).any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_order_of_trajectories_does_not_matter(estimator):
    order = np.array([3, 1, 4, 0, 2])
    assert estimator(REWARDS[order], PEERS[order]) == pytest.approx(estimator(REWARDS, PEERS)[order])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_sets_of_one_and_rewards_that_are_not_finite_are_refused(estimator):
    with pytest.raises(ValueError, match="set 5 has one member"):
        estimator(np.array([1.0, 0.0, 1.0]), np.array([2, 2, 5]))
    with pytest.raises(ValueError, match="the one at 1 is not"):
        estimator(np.array([1.0, np.nan]), np.array([2, 2]))


def test_no_trajectories_give_no_advantages():
    assert functional.leave_one_out(np.zeros(0), np.zeros(0, np.int64)).shape == (0,)


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
