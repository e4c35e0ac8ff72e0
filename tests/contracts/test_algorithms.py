"""What every registered algorithm owes, with its default options."""

import numpy as np
import pytest
import torch

import rlpt.algorithms  # noqa: F401 (registers)
from rlpt.algorithms.base import Algorithm
from rlpt.batch import Batch, Scores
from rlpt.registry import create, lookup, names

ALL = names("algorithm")
REINFORCED = [name for name in ALL if lookup("algorithm", name).uses_rewards]


def made(name) -> Algorithm:
    return create("algorithm", {"name": name})


def bandit(logits, arms, advantages, mask=None):
    """One row whose token t is a draw of arm `arms[t]`, with the sampler's log-probs those of the policy."""
    logprobs = logits.log_softmax(0)
    entropy = -(logprobs.exp() * logprobs).sum()
    ids = torch.zeros(1, len(arms), dtype=torch.int64)
    chosen = logprobs[arms][None]
    batch = Batch(
        objective="play",
        tokens=ids,
        labels=arms[None],
        positions=ids,
        loss_mask=torch.ones(1, len(arms), dtype=torch.bool) if mask is None else mask,
        segments=ids,
        advantages=torch.as_tensor(advantages, dtype=torch.float32)[None],
        behavior_logprobs=chosen.detach(),
        ref_logprobs=chosen.detach(),
    )
    return Scores(chosen, entropy.expand_as(chosen)), batch


def gradient(name, arms, advantages, mask=None):
    logits = torch.tensor([0.3, -0.2], requires_grad=True)
    terms = made(name)(*bandit(logits, torch.tensor(arms), advantages, mask))
    assert terms.total.shape == ()
    terms.total.backward()
    return terms, logits.grad


def test_the_expected_algorithms_are_registered():
    assert {"next_token", "reinforce", "grpo"} <= set(ALL)
    assert "next_token" not in REINFORCED


@pytest.mark.parametrize("name", ALL)
def test_the_total_is_a_sum_over_loss_tokens(name):
    once, gradient_once = gradient(name, [0, 1], [1.0, -0.5])
    twice, gradient_twice = gradient(name, [0, 1, 0, 1], [1.0, -0.5, 1.0, -0.5])
    assert gradient_once.abs().max() > 0
    torch.testing.assert_close(gradient_twice, 2 * gradient_once)
    torch.testing.assert_close(twice.total, 2 * once.total)
    assert once.metrics
    for key, value in once.metrics.items():
        torch.testing.assert_close(twice.metrics[key], 2 * value)


@pytest.mark.parametrize("name", ALL)
def test_what_is_off_the_mask_does_not_count(name):
    mask = torch.tensor([[True, True, False]])
    with_junk, gradient_with = gradient(name, [0, 1, 1], [1.0, -0.5, float("nan")], mask)
    without, gradient_without = gradient(name, [0, 1], [1.0, -0.5])
    torch.testing.assert_close(gradient_with, gradient_without)
    torch.testing.assert_close(with_junk.metrics, without.metrics)


@pytest.mark.parametrize("name", ALL)
def test_a_microbatch_without_loss_tokens_has_a_zero_loss_with_a_graph(name):
    terms, zero = gradient(name, [0, 1], [1.0, -0.5], torch.zeros(1, 2, dtype=torch.bool))
    assert terms.total.item() == 0
    assert zero.tolist() == [0, 0]
    assert terms.metrics.keys() == gradient(name, [0], [1.0])[0].metrics.keys()


@pytest.mark.parametrize("name", REINFORCED)
def test_a_good_token_becomes_likelier_and_a_bad_one_less_likely(name):
    assert gradient(name, [1], [1.0])[1][1] < 0
    assert gradient(name, [1], [-1.0])[1][1] > 0


@pytest.mark.parametrize("name", REINFORCED)
def test_a_group_of_equal_rewards_has_exactly_no_gradient(name):
    advantages = made(name).advantages(np.full(6, 0.1), np.zeros(6, np.int64), ["solver"] * 6)
    assert not advantages.any()
    assert not gradient(name, [0, 1, 0, 0, 1, 1], advantages)[1].any()


@pytest.mark.parametrize("name", REINFORCED)
def test_a_two_armed_bandit_is_solved(name):
    algorithm, logits = made(name), torch.zeros(2, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    peers = np.repeat(np.arange(4), 8)
    for _ in range(300):
        arms = torch.multinomial(logits.detach().softmax(0), 32, replacement=True, generator=generator)
        advantages = algorithm.advantages(arms.numpy().astype(np.float64), peers, ["solver"] * 32)
        logits.grad = None
        (algorithm(*bandit(logits, arms, advantages)).total / 32).backward()
        with torch.no_grad():
            logits -= 0.3 * logits.grad
    assert logits.softmax(0)[1] > 0.95
