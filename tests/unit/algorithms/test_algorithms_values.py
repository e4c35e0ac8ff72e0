"""Losses of the scalar heads: PPO's beside its policy loss, and regression to given returns."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.played import evaluate, outcomes, played

from rlpt.algorithms.ppo import PPO
from rlpt.algorithms.value_regression import ValueRegression

CASE = {  # two trajectories, of two tokens and one, and padding
    "new": [[-1.0, -2.0, -0.5, -3.0]],
    "ratios": [[1.0, 1.5, 0.5, 1.0]],
    "advantages": [[2.0, 3.0, -1.0, 5.0]],
    "mask": [[1, 1, 1, 0]],
    "segments": [[0, 0, 1, -1]],
}
VALUES = {
    "values": [[0.5, 0.9, 0.1, float("nan")]],
    "returns": [[1.0, 1.0, 0.0, 7.0]],
}


def ppo_case(turn=99, **changes):
    """The value head said .5 everywhere when it was played: the second has moved by .4, the third by -.4."""
    scores, batch = played(**CASE, **VALUES, ref_logprobs=[[-1.0, -2.0, -0.5, 0.0]])
    batch = replace(batch, values=torch.tensor([[0.5, 0.5, 0.5, 0.0]]), turn=turn, **changes)
    return scores, batch


def test_ppo_adds_the_policys_loss_and_the_values():
    scores, batch = ppo_case()
    total, gradient, metrics, _ = evaluate(PPO(value_coefficient=0.5), scores, batch)
    policy = -(2 + 1.2 * 3) / 2 + 0.8  # rho .5 with A < 0 counts as .8
    value = ((0.5**2 + 0.3**2) / 2 + 0.3**2) / 2  # clipped to .7 and .3
    assert total == pytest.approx(policy + 0.5 * value, rel=1e-5)
    assert gradient[0] == pytest.approx([-1, 0, 0, 0])
    assert scores.values.grad[0].tolist() == pytest.approx([0.5 * 0.5 * -0.5, 0, 0, 0])
    assert metrics["value_loss"] == pytest.approx((0.25 + 0.09 + 0.09) / 2, rel=1e-5)
    assert PPO().count(batch) == pytest.approx(2)
    assert PPO().head == "value"


def test_ppo_without_a_value_clip():
    scores, batch = ppo_case()
    evaluate(PPO(value_clip=0.0, normalizer="token"), scores, batch)
    assert scores.values.grad[0].tolist() == pytest.approx([-0.5, -0.1, 0.1, 0], rel=1e-5)


def test_only_the_value_loss_counts_while_the_critic_warms_up():
    algorithm = PPO(critic_warmup=3, entropy_bonus=0.1)
    for turn in (0, 2):
        scores, batch = ppo_case(turn)
        total, gradient, _, _ = evaluate(algorithm, scores, batch)
        assert gradient[0] == [0, 0, 0, 0]
        assert not scores.entropy.grad.any()
        assert scores.values.grad[0, 0] == pytest.approx(-0.25)
        assert total == pytest.approx(((0.5**2 + 0.3**2) / 2 + 0.3**2) / 2, rel=1e-5)
    scores, batch = ppo_case(3)
    assert evaluate(algorithm, scores, batch)[1][0] == pytest.approx([-1, 0, 0, 0])


def test_figures_of_a_value_head():
    """V - R = -.5, -.1, .1; R = 1, 1, 0."""
    _, _, metrics, _ = evaluate(PPO(), *ppo_case())
    assert metrics["value"] == pytest.approx(1.5)
    assert metrics["return"] == pytest.approx(2)
    means = {key: value / 3 for key, value in metrics.items()}
    described = PPO().describe(means)
    residual, variance = 0.27 / 3 - (0.5 / 3) ** 2, 2 / 3 - 4 / 9
    assert described["explained_variance"] == pytest.approx(1 - residual / variance, rel=1e-4)
    assert 0 < described["effective_sample_size"] < 1
    equal = {**means, "return": 0.5, "return_squared": 0.25}
    assert "explained_variance" not in PPO().describe(equal)


def test_ppo_says_what_a_batch_lacks():
    scores, batch = ppo_case()
    for part in ("values", "returns"):
        with pytest.raises(AssertionError, match=part):
            PPO()(scores, replace(batch, **{part: None}))
    with pytest.raises(AssertionError, match="value head"):
        PPO()(replace(scores, values=None), batch)


def test_ppo_leaves_rewards_to_its_credit():
    assert PPO().advantages(outcomes([3.0, 1.0]), {}).tolist() == [3, 1]
    assert PPO().needs_silent


def test_value_regression_by_squared_error():
    scores, batch = played(**CASE, **VALUES)
    total, gradient, metrics, _ = evaluate(ValueRegression(), *with_policy_gradient(scores, batch))
    assert total == pytest.approx((0.25 + 0.01 + 0.01) / 2, rel=1e-5)
    assert gradient[0] == [0, 0, 0, 0]
    assert scores.values.grad[0].tolist() == pytest.approx([-0.5, -0.1, 0.1, 0], rel=1e-5)
    assert metrics["value_error_squared"] == pytest.approx(0.27, rel=1e-5)


def test_value_regression_by_cross_entropy():
    """The head says logits: at 0 and log 3 its probabilities are 1/2 and 3/4."""
    scores, batch = played(
        new=[[-1.0, -1.0]],
        ratios=[[1.0, 1.0]],
        advantages=[[0.0, 0.0]],
        values=[[0.0, math.log(3)]],
        returns=[[0.25, 1.0]],
    )
    total, _, metrics, _ = evaluate(ValueRegression(loss="bce"), *with_policy_gradient(scores, batch))
    assert total == pytest.approx(math.log(2) - math.log(0.75), rel=1e-5)
    assert scores.values.grad[0].tolist() == pytest.approx([0.25, -0.25])
    assert metrics["value"] == pytest.approx(1.25)
    with pytest.raises(ValueError, match="between 0 and 1"):
        ValueRegression(loss="bce")(scores, replace(batch, returns=torch.tensor([[0.5, 1.5]])))


@pytest.mark.parametrize("loss", ["squared", "bce"])
def test_value_regression_ends_at_the_mean_return(loss):
    value = torch.zeros(1, requires_grad=True)
    _, batch = played([[-1.0] * 4], [[1.0] * 4], [[0.0] * 4], returns=[[1.0, 0.0, 1.0, 1.0]])
    for _ in range(100):
        scores = replace(played([[-1.0] * 4], [[1.0] * 4], [[0.0] * 4])[0], values=value.expand(1, 4))
        (gradient,) = torch.autograd.grad(ValueRegression(loss=loss)(scores, batch).total, value)
        with torch.no_grad():
            value -= 0.2 * gradient
    said = value.sigmoid() if loss == "bce" else value
    assert said.item() == pytest.approx(0.75, abs=1e-3)


def test_the_head_that_is_fitted_is_an_option():
    assert ValueRegression().head == "process"
    assert ValueRegression(head="value").head == "value"
    assert not ValueRegression().uses_rewards
    without_values = played(**CASE)
    with pytest.raises(AssertionError, match="value head"):
        ValueRegression(head="value")(*without_values)


def with_policy_gradient(scores, batch):
    """The log-probs take part with weight 0, so that `evaluate` finds their gradient."""
    return replace(scores, values=scores.values + 0 * scores.logprobs), batch
