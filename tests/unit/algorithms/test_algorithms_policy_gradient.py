"""What all policy gradients share: means over tokens, KL and entropy terms, stale samples, figures."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.played import evaluate, played

from rlpt.algorithms.dapo import DAPO
from rlpt.algorithms.grpo import GRPO
from rlpt.algorithms.gspo import GSPO
from rlpt.algorithms.reinforce import Reinforce
from rlpt.batch import Batch
from rlpt.errors import ConfigError
from rlpt.registry import create

# One row with a trajectory of one token (A = 5) and one of three (A = -1); the last position is padding.
UNEVEN = {
    "new": [[-1.0, -1.0, -2.0, -3.0, -7.0]],
    "ratios": [[1.0, 1.0, 1.0, 1.0, 1.0]],
    "advantages": [[5.0, -1.0, -1.0, -1.0, 0.0]],
    "mask": [[1, 1, 1, 1, 0]],
    "segments": [[0, 1, 1, 1, -1]],
}


@pytest.mark.parametrize(
    ("options", "total", "count", "gradient"),
    [
        ({"normalizer": "token"}, 5 - 6, 4, [-5, 1, 1, 1, 0]),
        ({"normalizer": "sequence"}, 5 - 2, 2, [-5, 1 / 3, 1 / 3, 1 / 3, 0]),
        ({"normalizer": "constant", "constant": 2}, (5 - 6) / 2, 2, [-2.5, 0.5, 0.5, 0.5, 0]),
    ],
)
def test_normalizers_at_uneven_lengths(options, total, count, gradient):
    algorithm = Reinforce(**options)
    scores, batch = played(**UNEVEN)
    found, gradients, metrics, _ = evaluate(algorithm, scores, batch)
    assert found == pytest.approx(total)
    assert gradients[0] == pytest.approx(gradient)
    assert algorithm.count(batch) == pytest.approx(count)
    assert metrics["advantage_abs"] == 8  # figures are over tokens whatever the loss's mean is


def rows(batch: Batch, part: slice) -> Batch:
    tensors = {key: value[part] for key, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return replace(batch, **tensors)


@pytest.mark.parametrize("normalizer", ["token", "sequence", "constant"])
def test_how_rows_are_split_into_microbatches_changes_nothing(normalizer):
    """Three rows; a trajectory of four tokens is spread over the first two, as views of a window are."""
    algorithm = GRPO(normalizer=normalizer, constant=3, kl_coefficient=0.1, entropy_bonus=0.1)
    scores, batch = played(
        new=[[-1.0, -2.0, -0.5], [-1.5, -1.0, -0.1], [-0.3, -0.2, -3.0]],
        ratios=[[1.0, 1.1, 0.5], [1.5, 1.0, 1.0], [0.9, 1.0, 1.0]],
        advantages=[[1.0, 1.0, 1.0], [1.0, -2.0, -2.0], [0.5, 0.5, 0.0]],
        mask=[[1, 1, 1], [1, 1, 1], [1, 1, 0]],
        segments=[[0, 0, 0], [0, 1, 1], [0, 0, -1]],
        sequence_share=[[0.25, 0.25, 0.25], [0.25, 0.5, 0.5], [0.5, 0.5, 0.0]],
        ref_logprobs=[[-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0]],
    )
    whole = algorithm(scores, batch)
    for cut in (1, 2):
        parts = []
        for part in (slice(0, cut), slice(cut, 3)):
            piece = rows(batch, part)
            terms = algorithm(replace(scores, logprobs=scores.logprobs[part], entropy=scores.entropy[part]), piece)
            parts.append((terms, algorithm.count(piece)))
        torch.testing.assert_close(sum(terms.total for terms, _ in parts), whole.total)
        assert sum(count for _, count in parts) == pytest.approx(algorithm.count(batch))
        for key, value in whole.metrics.items():
            torch.testing.assert_close(sum(terms.metrics[key] for terms, _ in parts), value)
    assert whole.total.abs() > 0.1
    assert algorithm.count(batch) == pytest.approx(8 if normalizer == "token" else 3)


def test_a_normalizer_over_trajectories_needs_their_lengths():
    scores, batch = played(**UNEVEN)
    batch = replace(batch, sequence_share=None)
    assert Reinforce().count(batch) == 4
    for call in (lambda: GRPO().count(batch), lambda: GRPO()(scores, batch)):
        with pytest.raises(AssertionError, match="sequence_share"):
            call()


def test_truncated_importance_weights():
    """A log p is weighed by min(rho, 1.2), without gradient; rho is 1, 1.5 and .5."""
    case = {"new": [[-1.0, -2.0, -3.0]], "ratios": [[1.0, 1.5, 0.5]], "advantages": [[2.0, 3.0, -1.0]]}
    total, gradient, metrics, _ = evaluate(Reinforce(truncate=1.2), *played(**case))
    assert total == pytest.approx(2 + 1.2 * 6 - 0.5 * 3)
    assert gradient[0] == pytest.approx([-2, -3.6, 0.5])
    assert metrics["clipped"] == 1
    total, gradient, metrics, _ = evaluate(Reinforce(), *played(**case))
    assert total == pytest.approx(2 + 6 - 3)
    assert gradient[0] == pytest.approx([-2, -3, 1])
    assert metrics["clipped"] == 0


def test_a_capped_ratio_is_dual_clip():
    """A < 0: rho 2 keeps its gradient, rho 4 has none above the cap of 3; A > 0 is cut by the clip in any case."""
    case = {"new": [[-1.0, -1.0, -1.0]], "ratios": [[2.0, 4.0, 4.0]], "advantages": [[-1.0, -1.0, 1.0]]}
    total, gradient, metrics, _ = evaluate(DAPO(truncate=3.0), *played(**case))
    assert total == pytest.approx(2 + 3 - 1.28)
    assert gradient[0] == pytest.approx([2, 0, 0])
    assert metrics["clipped"] == 2
    total, gradient, metrics, _ = evaluate(DAPO(), *played(**case))
    assert total == pytest.approx(2 + 4 - 1.28)
    assert gradient[0] == pytest.approx([2, 4, 0])
    assert metrics["clipped"] == 1


def test_sequences_that_have_drifted_are_masked():
    """Geometric means of rho: sqrt(4 * 1) = 2 and sqrt(3 / 2) = 1.22; at 1.5 the first leaves the loss with all its
    terms, and still counts in the divisor."""
    scores, batch = played(
        new=[[-1.0, -1.0, -1.0, -1.0]],
        ratios=[[4.0, 1.0, 3.0, 0.5]],
        advantages=[[1.0, 1.0, 1.0, 1.0]],
        segments=[[0, 0, 1, 1]],
        ref_logprobs=[[-2.0, -2.0, -1.0, -1.0]],
    )
    algorithm = Reinforce(mask_sequences=1.5, kl_coefficient=0.5, entropy_bonus=0.1)
    total, gradient, metrics, maxima = evaluate(algorithm, scores, batch)
    assert total == pytest.approx(2 - 0.1)
    assert gradient[0] == pytest.approx([0, 0, -1, -1])
    assert scores.entropy.grad[0].tolist() == pytest.approx([0, 0, -0.1, -0.1])
    assert metrics["masked"] == 2
    assert maxima["largest_ratio"] == pytest.approx(4)
    assert algorithm.count(batch) == 4
    kept = evaluate(Reinforce(mask_sequences=2.5), *played(**UNEVEN))
    assert kept[2]["masked"] == 0


def test_sequences_that_have_become_unlikely_are_masked_too():
    case = {"new": [[-1.0, -1.0]], "ratios": [[0.4, 0.6]], "advantages": [[1.0, 1.0]], "segments": [[0, 1]]}
    _, gradient, metrics, _ = evaluate(Reinforce(mask_sequences=2), *played(**case))
    assert gradient[0] == [0, -1]
    assert metrics["masked"] == 1


@pytest.mark.parametrize(
    ("estimator", "kl", "gradient"),
    [("k2", math.log(2) ** 2 / 2, -math.log(2)), ("k3", 1 - math.log(2), -1.0)],
)
def test_kl_in_the_loss(estimator, kl, gradient):
    """At log(reference / policy) = log 2 the policy is pulled up: d k2 = -log 2, d k3 = 1 - 2."""
    scores, batch = played(
        new=[[-1.0, -2.0]],
        ratios=[[1.0, 1.0]],
        advantages=[[0.0, 0.0]],
        ref_logprobs=[[-1.0, -2.0 + math.log(2)]],
    )
    algorithm = DAPO(kl_coefficient=0.5, kl_estimator=estimator)
    total, gradients, metrics, _ = evaluate(algorithm, scores, batch)
    assert total == pytest.approx(0.5 * kl, rel=1e-5)
    assert gradients[0] == pytest.approx([0, 0.5 * gradient], rel=1e-5)
    assert metrics["reference_kl"] == pytest.approx(kl, rel=1e-5)
    assert algorithm.needs_reference
    assert algorithm.needs_silent


def test_kl_in_the_loss_is_averaged_as_the_rest_of_it():
    scores, batch = played(**UNEVEN, ref_logprobs=[[-1.0, -1.0, -2.0, -3.0 + math.log(2), 9.0]])
    scores, batch = scores, replace(batch, advantages=torch.zeros(1, 5))
    total, gradient, _, _ = evaluate(GRPO(kl_coefficient=1.0), scores, batch)
    assert total == pytest.approx((1 - math.log(2)) / 3, rel=1e-5)
    assert gradient[0] == pytest.approx([0, 0, 0, -1 / 3, 0], abs=1e-6)


def test_kl_in_the_reward_is_reported_and_leaves_the_loss_alone():
    scores, batch = played(new=[[-1.0]], ratios=[[1.0]], advantages=[[2.0]], ref_logprobs=[[-3.0]])
    algorithm = GRPO(kl_coefficient=0.5, kl_estimator="k1", kl_in="reward")
    total, gradient, metrics, _ = evaluate(algorithm, scores, batch)
    assert (total, gradient) == (-2.0, [[-2.0]])
    assert metrics["reference_kl"] == pytest.approx(2.0)
    assert not algorithm.needs_silent


def test_only_a_kl_needs_the_reference():
    assert not GRPO().needs_reference
    assert not Reinforce().needs_reference
    assert "reference_kl" not in evaluate(GRPO(), *played(**UNEVEN))[2]
    with pytest.raises(AssertionError, match="reference"):
        GRPO(kl_coefficient=0.1)(*played(**UNEVEN))


def test_entropy_bonus():
    scores, batch = played(**UNEVEN)
    total, gradient, metrics, _ = evaluate(Reinforce(entropy_bonus=0.1), scores, batch)
    assert total == pytest.approx(-1 - 0.2)
    assert gradient[0] == pytest.approx([-5, 1, 1, 1, 0])
    assert scores.entropy.grad[0].tolist() == pytest.approx([-0.1, -0.1, -0.1, -0.1, 0])
    assert metrics["entropy"] == 2.0
    assert Reinforce(entropy_bonus=0.1).needs_silent
    assert not Reinforce().needs_silent


def test_figures_of_stale_samples():
    """rho 1, 3 and .5: means 1.5 and 10.25 / 3, of which the effective sample size."""
    case = {"new": [[-1.0, -1.0, -1.0]], "ratios": [[1.0, 3.0, 0.5]], "advantages": [[1.0, -2.0, 0.0]]}
    _, _, metrics, maxima = evaluate(DAPO(), *played(**case))
    assert metrics == pytest.approx(
        {
            "entropy": 1.5,
            "advantage_abs": 3.0,
            "behavior_kl": (2 - math.log(3)) + (-0.5 + math.log(2)),
            "clipped": 0,
            "masked": 0,
            "importance": 4.5,
            "importance_squared": 10.25,
        },
        rel=1e-5,
    )
    assert maxima == pytest.approx({"largest_ratio": 3.0})
    means = {key: value / 3 for key, value in metrics.items()}
    assert DAPO().describe(means) == pytest.approx({"effective_sample_size": 2.25 / (10.25 / 3)}, rel=1e-5)


def test_the_effective_sample_size_of_fresh_samples_is_all_of_them():
    _, _, metrics, _ = evaluate(GRPO(), *played(**UNEVEN))
    assert GRPO().describe({key: value / 4 for key, value in metrics.items()}) == {"effective_sample_size": 1.0}
    assert GRPO().describe(dict.fromkeys(metrics, 0.0)) == {}


def test_on_policy_gradients_of_clipped_and_plain_surrogates_are_one():
    expected = evaluate(Reinforce(), *played(**UNEVEN))[1]
    assert expected == [[-5, 1, 1, 1, 0]]
    for algorithm in (DAPO(), GSPO(normalizer="token"), Reinforce(truncate=2.0)):
        assert evaluate(algorithm, *played(**UNEVEN))[1][0] == pytest.approx(expected[0])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "grpo", "clip_low": 1.5}, "clip_low=1.5: must be above 0 and at most 1"),
        ({"name": "grpo", "clip_high": 0}, r"clip_high=0(\.0)?: must be above 0"),
        ({"name": "grpo", "kl_coefficient": -1}, r"kl_coefficient=-1(\.0)?: must be 0 or more"),
        ({"name": "grpo", "kl_estimator": "k4"}, "kl_estimator"),
        ({"name": "grpo", "kl_in": "advantage"}, "kl_in"),
        ({"name": "grpo", "kl_coefficient": 0.1, "kl_estimator": "k1"}, "kl_estimator=k1 in the loss"),
        ({"name": "grpo", "normalizer": "row"}, "normalizer"),
        ({"name": "grpo", "constant": 0}, "constant=0: must be 1 or more"),
        ({"name": "grpo", "truncate": 1.1}, r"truncate=1\.1: must be 0 \(off\), or above 1 \+ clip_high = 1\.2"),
        ({"name": "reinforce", "truncate": 0.5}, r"truncate=0\.5: must be 0 \(off\), or 1 or more"),
        ({"name": "reinforce", "mask_sequences": 1}, r"mask_sequences=1(\.0)?: must be 0 \(off\), or above 1"),
        ({"name": "reinforce", "baseline": "mean"}, "baseline"),
        ({"name": "reinforce", "entropy_bonus": -0.1}, r"entropy_bonus=-0\.1"),
        ({"name": "cispo", "truncate": 3}, "clip_high is this weight's cap"),
        ({"name": "maxrl", "kl_in": "reward"}, "kl_in=reward"),
        ({"name": "rae", "decay": 1.0}, r"decay=1\.0: must be at least 0 and below 1"),
        ({"name": "ppo", "lam": 1.5}, r"lam=1\.5: must be between 0 and 1"),
        ({"name": "ppo", "gamma": -0.1}, r"gamma=-0\.1"),
        ({"name": "ppo", "value_clip": -1}, "value_clip=-1"),
        ({"name": "ppo", "value_coefficient": -1}, "value_coefficient=-1"),
        ({"name": "ppo", "critic_warmup": -1}, "critic_warmup=-1"),
        ({"name": "value_regression", "head": "policy"}, "head"),
        ({"name": "reinforce_plus_plus", "baseline": "none"}, "baseline"),
        ({"name": "grpo", "clip": 0.1}, "did you mean 'clip_low'"),
        ({"name": "gropo"}, "did you mean 'grpo'"),
    ],
)
def test_wrong_options_are_refused_by_name(spec, message):
    with pytest.raises(ConfigError, match=message):
        create("algorithm", spec, "objectives.play.algorithm")
