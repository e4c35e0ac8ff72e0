"""Each algorithm's estimator and loss: values and gradients worked out by hand, and its paper's settings."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.played import evaluate, outcomes, played

from rlpt.algorithms.cispo import CISPO
from rlpt.algorithms.dapo import DAPO
from rlpt.algorithms.distill import Distill
from rlpt.algorithms.dr_grpo import DrGRPO
from rlpt.algorithms.expert_iteration import ExpertIteration
from rlpt.algorithms.grpo import GRPO
from rlpt.algorithms.gspo import GSPO
from rlpt.algorithms.maxrl import MaxRL
from rlpt.algorithms.next_token import NextToken
from rlpt.algorithms.rae import RAE
from rlpt.algorithms.reinforce import Reinforce
from rlpt.algorithms.rloo import RLOO
from rlpt.algorithms.rlp import RLP
from rlpt.algorithms.task_role import TaskRole

CASE = {  # a trajectory of two tokens, and padding
    "new": [[-1.0, -2.0, -3.0]],
    "ratios": [[1.0, 1.5, 1.0]],
    "advantages": [[2.0, 3.0, 5.0]],
    "mask": [[1, 1, 0]],
}
REWARDS, PEERS = [1.0, 0.0, 4.0, 2.0], [0, 0, 1, 1]


def advantages(algorithm, rewards=REWARDS, peers=PEERS, roles=None, tasks=None):
    return algorithm.advantages(outcomes(rewards, peers, roles, tasks), {}).tolist()


def test_next_token_is_the_negative_log_likelihood():
    total, gradient, metrics, _ = evaluate(NextToken(), *played(**CASE))
    assert total == pytest.approx(3.0)
    assert gradient[0] == [-1, -1, 0]
    assert metrics == {"entropy": 1.0}
    assert advantages(NextToken()) == [1, 1, 1, 1]


def test_reinforce_weighs_log_probs_by_advantages():
    total, gradient, _, _ = evaluate(Reinforce(), *played(**CASE))
    assert total == pytest.approx(2 + 6)
    assert gradient[0] == [-2, -3, 0]


def test_expert_iteration_imitates_winners_alone():
    """Two trajectories of two tokens, the first a winner: -(-1 - 2) over 2 tokens; the loser is not in the divisor."""
    case = {
        "new": [[-1.0, -2.0], [-4.0, -5.0]],
        "ratios": [[1.0, 3.0], [1.0, 1.0]],
        "advantages": [[1.0, 1.0], [0.0, 0.0]],
    }
    scores, batch = played(**case)
    total, gradient, metrics, _ = evaluate(ExpertIteration(), scores, batch)
    assert total == pytest.approx(3.0)
    assert gradient == [[-1, -1], [0, 0]]
    assert metrics == {"entropy": 2.0, "winners": 2.0}
    assert ExpertIteration().count(batch) == 2


def test_winners_of_expert_iteration():
    rewards, peers = [1.0, 0.5, 1.0, 2.0, 3.0, 3.0, 0.9], [7, 7, 7, 2, 2, 2, 5]
    assert advantages(ExpertIteration(), rewards, peers) == [1, 0, 1, 1, 1, 1, 0]
    assert advantages(ExpertIteration(threshold=2.5), rewards, peers) == [0, 0, 0, 0, 1, 1, 0]
    assert advantages(ExpertIteration(best_only=True), rewards, peers) == [1, 0, 0, 0, 1, 0, 0]
    assert advantages(ExpertIteration(threshold=0.5, best_only=True), rewards, peers) == [1, 0, 0, 0, 1, 0, 1]
    with pytest.raises(ValueError, match="finite"):
        advantages(ExpertIteration(), [np.nan], [0])


def test_baselines_of_reinforce():
    roles = ["a", "b", "a", "b"]
    expected = {"none": [1, 0, 4, 2], "batch": [-1.5, -1, 1.5, 1], "group": [0.5, -0.5, 1, -1]}
    for baseline, values in {**expected, "leave_one_out": [1, -1, 2, -2]}.items():
        assert advantages(Reinforce(baseline=baseline), roles=roles) == pytest.approx(values)
    with pytest.raises(ValueError, match="finite"):
        advantages(Reinforce(baseline="none"), [np.inf], [0])


def test_rloo_sums_over_a_trajectory():
    assert advantages(RLOO()) == pytest.approx([1, -1, 2, -2])
    scores, batch = played(**CASE)
    assert evaluate(RLOO(), scores, batch)[:2] == (8.0, [[-2, -3, 0]])
    assert RLOO().count(batch) == 1


@pytest.mark.parametrize(
    ("algorithm", "total", "gradient", "count"),
    [
        (GRPO(), -(2 + 1.2 * 3) / 2, [-1, 0, 0], 1),
        (GRPO(clip_high=0.6), -(2 + 1.5 * 3) / 2, [-1, -2.25, 0], 1),
        (DAPO(), -(2 + 1.28 * 3), [-2, 0, 0], 2),
        (DrGRPO(), -(2 + 1.2 * 3), [-2, 0, 0], 1),
        (DrGRPO(constant=4), -(2 + 1.2 * 3) / 4, [-0.5, 0, 0], 1),
        (RAE(), -(2 + 1.2 * 3), [-2, 0, 0], 1),
        (RLP(), -(2 + 1.2 * 3) / 2, [-1, 0, 0], 1),
        (TaskRole(), -(2 + 1.28 * 3), [-2, 0, 0], 2),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "clip_low") else "",
)
def test_clipped_losses(algorithm, total, gradient, count):
    """rho 1 and 1.5, A 2 and 3: what has grown beyond the clip has no gradient."""
    scores, batch = played(**CASE)
    found, gradients, metrics, _ = evaluate(algorithm, scores, batch)
    assert found == pytest.approx(total)
    assert gradients[0] == pytest.approx(gradient)
    assert algorithm.count(batch) == pytest.approx(count)
    assert metrics["clipped"] == (gradient[1] == 0)


def test_estimators_that_compare_peers():
    relative = [0.5, -0.5, 1, -1]
    for algorithm in (GRPO(), DAPO(), GSPO(), CISPO()):
        assert advantages(algorithm) == pytest.approx([1, -1, 1, -1], rel=1e-5)
    assert advantages(GRPO(normalise_std=False)) == pytest.approx(relative)
    assert advantages(DrGRPO()) == pytest.approx(relative)
    assert advantages(RLP()) == pytest.approx([1, -1, 2, -2])  # G / (G - 1) = 2
    assert advantages(MaxRL()) == pytest.approx([1, -1, 1 / 3, -1 / 3])


def test_maxrl_is_a_sum_of_log_probs():
    assert evaluate(MaxRL(), *played(**CASE))[:2] == (8.0, [[-2, -3, 0]])


def test_rae_keeps_a_baseline_of_each_role_in_each_task():
    """Two plays of a zero-sum game that the first player wins: +1 and -1, then .95 and -.95."""
    algorithm, baselines = RAE(), {}
    play = outcomes([1.0, -1.0], peers=[0, 0], roles=["first", "second"], tasks=["nim", "nim"])
    assert algorithm.advantages(play, baselines).tolist() == [1, -1]
    assert baselines == pytest.approx({"nim/first": 0.05, "nim/second": -0.05})
    assert algorithm.advantages(play, baselines) == pytest.approx([0.95, -0.95])
    other = outcomes([1.0], peers=[9], roles=["first"], tasks=["kuhn"])
    assert algorithm.advantages(other, baselines).tolist() == [1]


def test_task_role_whitens_each_task_and_role():
    """(add, solve): 1 and 0; (add, propose): .2 and .6; (sort, solve): 5 and 1, whatever the peers."""
    found = advantages(
        TaskRole(),
        [1.0, 0.2, 0.0, 0.6, 5.0, 1.0],
        peers=[0, 0, 1, 1, 2, 3],
        roles=["solve", "propose", "solve", "propose", "solve", "solve"],
        tasks=["add"] * 4 + ["sort"] * 2,
    )
    assert found == pytest.approx([1, -1, -1, 1, 1, -1], rel=1e-4)


def test_gspo_has_one_ratio_a_sequence():
    """Ratios 2 and 1/2: geometric mean 1. Ratios 1 and 1.21: 1.1, each token's gradient s A / 2."""
    algorithm = GSPO(clip_low=0.3, clip_high=0.3)
    scores, batch = played(
        new=[[-1.0, -2.0, -0.5, -3.0]],
        ratios=[[2.0, 0.5, 1.0, 1.21]],
        advantages=[[3.0, 3.0, -2.0, -2.0]],
        segments=[[0, 0, 1, 1]],
    )
    total, gradient, metrics, maxima = evaluate(algorithm, scores, batch)
    assert total == pytest.approx(-3 + 1.1 * 2, rel=1e-5)
    assert gradient[0] == pytest.approx([-1.5, -1.5, 1.1, 1.1], rel=1e-5)
    assert metrics["clipped"] == 0
    assert maxima["largest_ratio"] == pytest.approx(2.0)  # a token's, so that what goes wrong is seen


def test_gspo_cuts_whole_sequences():
    """1.1 is far beyond 1 + 4e-4: with A > 0 no token of it has a gradient; with A < 0 all have."""
    for sign, total, gradient in ((1.0, -1.0004, [0, 0]), (-1.0, 1.1, [0.55, 0.55])):
        case = {"new": [[-1.0, -1.0]], "ratios": [[1.21, 1.0]], "advantages": [[sign, sign]]}
        found, gradients, metrics, _ = evaluate(GSPO(), *played(**case))
        assert found == pytest.approx(total, rel=1e-5)
        assert gradients[0] == pytest.approx(gradient, rel=1e-5)
        assert metrics["clipped"] == (2 if sign > 0 else 0)


def test_gspo_has_the_gradient_of_the_papers_sequence_ratio():
    """Equation 5 written out, with its gradient through s itself."""
    generator = torch.Generator().manual_seed(1)
    new, drift = -torch.rand(2, 6, generator=generator), 0.2 * torch.randn(2, 6, generator=generator)
    sequence_advantages = torch.tensor([1.0, -2.0])
    scores, batch = played(new.tolist(), drift.exp().tolist(), sequence_advantages[:, None].expand(2, 6).tolist())
    total, gradient, _, _ = evaluate(GSPO(clip_low=0.2, clip_high=0.2), scores, batch)
    leaf = new.clone().requires_grad_()
    s = (leaf - (new - drift)).mean(1).exp()
    expected = -torch.minimum(s * sequence_advantages, s.clamp(0.8, 1.2) * sequence_advantages).sum()
    expected.backward()
    assert total == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(torch.tensor(gradient), leaf.grad)
    assert leaf.grad.abs().min() > 0.01


def test_cispo_clips_the_weight_and_keeps_the_gradient():
    """Weights 1.5, 5 (of 8) and .1: -w A, for good and bad tokens alike."""
    case = {"new": [[-1.0, -2.0, -3.0]], "ratios": [[1.5, 8.0, 0.1]], "advantages": [[2.0, 1.0, -1.0]]}
    total, gradient, metrics, _ = evaluate(CISPO(), *played(**case))
    assert total == pytest.approx(1.5 * 2 + 5 * 2 - 0.1 * 3)
    assert gradient[0] == pytest.approx([-3, -5, 0.1])
    assert metrics["clipped"] == 1
    _, gradient, metrics, _ = evaluate(CISPO(clip_low=0.5), *played(**case))
    assert gradient[0] == pytest.approx([-3, -5, 0.5])
    assert metrics["clipped"] == 2


def test_distill_is_the_cross_entropy_to_the_weights():
    logprobs = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.9, 1.0], [0.3, 0.3, 0.4]]]).log().requires_grad_()
    scores, batch = played(**CASE)
    scores = replace(scores, candidate_logprobs=logprobs)
    weights = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [torch.nan, 1.0, 1.0]]])
    terms = Distill()(scores, replace(batch, candidate_weights=weights))
    terms.total.backward()
    expected = 0.5 * math.log(2) + 0.5 * math.log(4) + math.log(10)
    assert terms.total.item() == pytest.approx(expected)
    assert logprobs.grad[0].tolist() == [[-0.5, -0.5, 0], [-1, 0, 0], [0, 0, 0]]
    found = {key: value.item() for key, value in terms.metrics.items()}
    entropy = math.log(2)
    assert found == pytest.approx({"entropy": 1.0, "target_entropy": entropy, "target_kl": expected - entropy})
    assert advantages(Distill()) == [1, 1, 1, 1]


def test_distill_ends_at_the_weights():
    logits, weights = torch.zeros(3, requires_grad=True), torch.tensor([[[0.2, 0.7, 0.1]]])
    _, batch = played(new=[[-1.0]], ratios=[[1.0]], advantages=[[1.0]], candidate_weights=weights)
    for _ in range(300):
        scores = replace(played([[-1.0]], [[1.0]], [[1.0]])[0], candidate_logprobs=logits.log_softmax(0)[None, None])
        (gradient,) = torch.autograd.grad(Distill()(scores, batch).total, logits)
        with torch.no_grad():
            logits -= gradient
    torch.testing.assert_close(logits.softmax(0), weights[0, 0], atol=1e-3, rtol=0)
