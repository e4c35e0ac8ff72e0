"""Each algorithm's loss on a small batch: hand-computed values, gradients, metrics and options."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlpt.algorithms.grpo import GRPO
from rlpt.algorithms.next_token import NextToken
from rlpt.algorithms.reinforce import Reinforce
from rlpt.batch import Batch, Scores
from rlpt.errors import ConfigError
from rlpt.registry import create

MASK = torch.tensor([[True, True, False]])
NEW = torch.tensor([[-1.0, -2.0, -3.0]])
OLD = torch.tensor([[-1.0, -2.0 - math.log(1.5), 0.0]])  # ratios 1 and 1.5


def case(advantages=(2.0, 3.0, 5.0), **tensors):
    ids = torch.zeros(1, 3, dtype=torch.int64)
    batch = Batch(
        "play", ids, ids, ids, MASK, ids, advantages=torch.tensor([advantages]), behavior_logprobs=OLD, **tensors
    )
    return Scores(NEW.clone().requires_grad_(), torch.full((1, 3), 0.5, requires_grad=True)), batch


def gradients(algorithm, scores, batch):
    terms = algorithm(scores, batch)
    terms.total.backward()
    assert not any(metric.requires_grad for metric in terms.metrics.values())
    return terms.total.item(), scores.logprobs.grad[0].tolist(), {k: v.item() for k, v in terms.metrics.items()}


def test_next_token_is_the_negative_log_likelihood():
    total, gradient, metrics = gradients(NextToken(), *case())
    assert total == pytest.approx(3.0)
    assert gradient == [-1, -1, 0]
    assert metrics == {"entropy": 1.0}
    assert NextToken().advantages(np.array([0.0, 9.0]), np.zeros(2, np.int64), ["a", "a"]).tolist() == [1, 1]


def test_reinforce_weighs_log_probs_by_advantages():
    scores, batch = case()
    total, gradient, metrics = gradients(Reinforce(entropy_bonus=0.1), scores, batch)
    assert total == pytest.approx(2 + 6 - 0.1)
    assert gradient == [-2, -3, 0]
    assert scores.entropy.grad[0].tolist() == pytest.approx([-0.1, -0.1, 0])
    assert metrics == pytest.approx({"entropy": 1.0, "advantage_abs": 5.0, "behavior_kl": 0.5 - math.log(1.5)})


def test_grpo_clips_what_has_grown_enough():
    total, gradient, metrics = gradients(GRPO(), *case())
    assert total == pytest.approx(-(2 + 1.28 * 3))
    assert gradient == pytest.approx([-2, 0, 0])
    assert metrics["clipped"] == 1
    assert metrics["advantage_abs"] == 5


def test_grpo_penalises_distance_from_the_reference():
    scores, batch = case((0.0, 0.0, 0.0), ref_logprobs=torch.tensor([[-1.0, -2.0 + math.log(2), 9.0]]))
    total, gradient, metrics = gradients(GRPO(kl_coefficient=0.5), scores, batch)
    assert total == pytest.approx(0.5 * (1 - math.log(2)))
    assert gradient == pytest.approx([0, -0.5, 0])  # up, towards the reference: d k3 = 1 - p/q = -1
    assert metrics["reference_kl"] == pytest.approx(1 - math.log(2))


def test_only_a_kl_needs_the_reference():
    assert not GRPO().needs_reference
    assert not Reinforce().needs_reference
    assert GRPO(kl_coefficient=0.1).needs_reference
    with pytest.raises(AssertionError, match="reference"):
        GRPO(kl_coefficient=0.1)(*case())


def test_on_policy_gradient_of_grpo_is_that_of_reinforce():
    results = []
    for algorithm in (GRPO(), Reinforce()):
        scores, batch = case((2.0, -3.0, 5.0))
        results.append(gradients(algorithm, scores, replace(batch, behavior_logprobs=NEW))[1])
    assert results[0] == results[1] == [-2, 3, 0]


def test_baselines_of_reinforce():
    rewards, peers, roles = np.array([1.0, 0, 4, 2]), np.array([0, 0, 1, 1]), ["a", "b", "a", "b"]
    expected = {"none": [1, 0, 4, 2], "batch": [-1.5, -1, 1.5, 1], "group": [0.5, -0.5, 1, -1]}
    for baseline, values in {**expected, "leave_one_out": [1, -1, 2, -2]}.items():
        assert Reinforce(baseline=baseline).advantages(rewards, peers, roles) == pytest.approx(values)
    with pytest.raises(ValueError, match="finite"):
        Reinforce(baseline="none").advantages(np.array([np.inf]), np.zeros(1, np.int64), ["a"])


def test_division_by_the_standard_deviation_is_an_option():
    rewards, peers = np.array([0.0, 0.2]), np.zeros(2, np.int64)
    assert GRPO().advantages(rewards, peers, ["a", "a"]) == pytest.approx([-1, 1], rel=1e-4)
    assert GRPO(normalise_std=False).advantages(rewards, peers, ["a", "a"]) == pytest.approx([-0.1, 0.1])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "grpo", "clip_low": 1.5}, "clip_low=1.5"),
        ({"name": "grpo", "clip_high": 0}, "clip_high=0"),
        ({"name": "grpo", "kl_coefficient": -1}, "kl_coefficient=-1"),
        ({"name": "grpo", "kl_estimator": "k4"}, "kl_estimator"),
        ({"name": "reinforce", "baseline": "mean"}, "baseline"),
        ({"name": "reinforce", "entropy_bonus": -0.1}, "entropy_bonus=-0.1"),
        ({"name": "grpo", "clip": 0.1}, "did you mean 'clip_low'"),
        ({"name": "gropo"}, "did you mean 'grpo'"),
    ],
)
def test_wrong_options_are_refused_by_name(spec, message):
    with pytest.raises(ConfigError, match=message):
        create("algorithm", spec, "objectives.play.algorithm")
