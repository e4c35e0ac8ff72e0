"""Estimators and losses against figures that verl and TRL compute from the same inputs.

`published_figures.json` holds the inputs (4 problems, 4 attempts each, up to 7 tokens, some of them not actions), drawn
at random, and what functions of the two packages made of them in f64: `source` names the function, `settings` its
arguments, `versions` the releases. Where a definition here differs on purpose, the test states the exact relation.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rlpt.algorithms import advantage_estimators, functional
from rlpt.algorithms.base import Outcomes
from rlpt.algorithms.cispo import CISPO
from rlpt.algorithms.dapo import DAPO
from rlpt.algorithms.dr_grpo import DrGRPO
from rlpt.algorithms.grpo import GRPO
from rlpt.algorithms.gspo import GSPO
from rlpt.algorithms.ppo import PPO
from rlpt.algorithms.reinforce import Reinforce
from rlpt.algorithms.reinforce_plus_plus import ReinforcePlusPlus
from rlpt.algorithms.rloo import RLOO
from rlpt.algorithms.rlp import RLP
from rlpt.batch import Batch, Scores
from rlpt.types import Trajectory

DATA = json.loads(Path(__file__).with_name("published_figures.json").read_text())
GIVEN = {name: np.array(values) for name, values in DATA["inputs"].items()}
MASK = GIVEN["mask"].astype(bool)  # [16, 7]
REWARDS, PEERS = GIVEN["rewards"], GIVEN["peers"]  # [16]: graded for two problems, 0 or 1 for one, all equal for one
COUNTS = MASK.sum(1)  # [16] actions of each attempt
NUM_ACTIONS = int(COUNTS.sum())
PEERS_EACH = 4
ROLES = ["solver"] * len(PEERS)
SEQUENCE = np.broadcast_to(GIVEN["advantages"][:, None], MASK.shape)  # one advantage for all of an attempt's tokens
DRIFT = np.where(MASK, GIVEN["logprobs"] - GIVEN["behavior_logprobs"], 0)
RATIO = np.exp(DRIFT)
MEAN_DRIFT = DRIFT.sum(1) / COUNTS

LAYOUTS = {"a row each": 1, "four a row": 4}  # attempts in a row


def published(name):
    return {key: np.array(value) for key, value in DATA["figures"][name].items() if key not in ("source", "settings")}


def close(found, expected, tolerance=1e-6):
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=0, atol=tolerance)


def batch_of(advantages, behavior, attempts, each, dtype):
    """The Batch of some `attempts` (a slice), `each` of them in a row, and the tensor [B, T] of other columns."""

    def column(values):
        return torch.tensor(np.array(values)[attempts].reshape(-1, each * MASK.shape[1]), dtype=dtype)

    ends = np.maximum.accumulate(MASK[:, ::-1], 1)[:, ::-1]  # up to the last action; what follows is padding
    segments = np.where(ends, np.arange(len(MASK))[:, None] % each, -1)
    mask, segments = column(MASK).bool(), column(segments).long()
    batch = Batch(
        "play",
        *[torch.zeros_like(segments)] * 3,
        mask,
        segments,
        advantages=column(advantages),
        behavior_logprobs=column(behavior),
        ref_logprobs=column(GIVEN["ref_logprobs"]),
        returns=column(GIVEN["returns"]),
        values=column(GIVEN["values"]),
        sequence_share=column(np.broadcast_to(1 / COUNTS[:, None], MASK.shape)),
    )
    return batch, column


def evaluate(algorithm, advantages, behavior, each, parts, dtype=torch.float64):
    """(loss, gradients [16, 7] of it by column, sums of the metrics), over microbatches `parts`."""
    total, count, metrics, leaves = torch.zeros((), dtype=dtype), 0.0, {}, []
    for attempts in parts:
        batch, column = batch_of(advantages, behavior, attempts, each, dtype)
        leaf = {name: column(GIVEN[name]).requires_grad_() for name in ("logprobs", "entropy", "head")}
        terms = algorithm(Scores(leaf["logprobs"], leaf["entropy"], values=leaf["head"]), batch)
        total, count = total + terms.total, count + algorithm.count(batch)
        metrics = {name: metrics.get(name, 0) + value.item() for name, value in terms.metrics.items()}
        leaves.append(leaf)
    loss = total / count
    gradients = {}
    for name in leaves[0]:
        found = torch.autograd.grad(loss, [leaf[name] for leaf in leaves], retain_graph=True, materialize_grads=True)
        gradients[name] = torch.cat([part.reshape(-1, MASK.shape[1]) for part in found]).double().numpy()
    return loss.item(), gradients, metrics


def losses(algorithm, advantages=SEQUENCE, behavior=GIVEN["behavior_logprobs"]):
    """`evaluate` at every layout and split into microbatches, which must not matter, nor, much, must f32."""
    whole, split = [slice(0, 16)], [slice(0, 4), slice(4, 16)]
    first, *others = [
        evaluate(algorithm, advantages, behavior, each, parts) for each in LAYOUTS.values() for parts in (whole, split)
    ]
    others.append(evaluate(algorithm, advantages, behavior, 4, split, torch.float32))
    for (loss, gradients, metrics), tolerance in zip(others, (1e-12, 1e-12, 1e-12, 1e-5), strict=True):
        close(loss, first[0], tolerance)
        assert metrics == pytest.approx(first[2], abs=100 * tolerance)
        for name, gradient in gradients.items():
            close(gradient, first[1][name], tolerance)
    return first


def agree(found, name, scale=1.0):
    """Loss and gradient with respect to the log-probs are `scale` times the figure's; returns the metrics."""
    loss, gradients, metrics = found
    expected = published(name)
    close(loss, scale * expected["loss"])
    close(gradients["logprobs"], scale * expected["gradient"])
    assert np.abs(expected["gradient"]).max() > 1e-3
    return metrics


def trajectories(token_rewards=None):
    """One for each attempt; with [16, 7] `token_rewards` these are part of its reward."""
    extra = np.zeros(MASK.shape) if token_rewards is None else token_rewards
    return [
        Trajectory(
            role="solver",
            peers=int(PEERS[i]),
            token_ids=np.zeros(len(MASK[i]), np.int64),
            action_mask=MASK[i],
            logprobs=GIVEN["behavior_logprobs"][i],
            reward=REWARDS[i] + extra[i].sum(),
            token_rewards=None if token_rewards is None else extra[i],
            ref_logprobs=GIVEN["ref_logprobs"][i],
            values=GIVEN["values"][i],
        )
        for i in range(len(MASK))
    ]


def credited(algorithm, token_rewards=None):
    """(token advantages, returns), each [16, 7], the latter 0 where the algorithm sets none."""
    played = trajectories(token_rewards)
    rewards = np.array([algorithm.reward(one) for one in played])
    for one, advantage in zip(played, advantages_of(algorithm, rewards), strict=True):
        one.advantage = advantage
    algorithm.credit(played, lambda array: array)
    returns = [np.zeros(MASK.shape[1]) if one.returns is None else one.returns for one in played]
    return np.array([one.token_advantages for one in played]), np.array(returns)


def advantages_of(algorithm, rewards=REWARDS):
    return algorithm.advantages(Outcomes(rewards, PEERS, ROLES, ROLES), {})


def whitening(values):
    """What theirs must be multiplied by to be ours. Theirs: (x - mean) / sqrt(var + 1e-8), var with n - 1; ours:
    (x - mean) / (std + 1e-6), std with n."""
    variance, n = np.var(values[MASK]), NUM_ACTIONS
    return math.sqrt(variance * n / (n - 1) + 1e-8) / (math.sqrt(variance) + 1e-6)


# --- estimators


@pytest.mark.parametrize("name", ["verl_rloo", "trl_rloo_advantages"])
def test_leave_one_out(name):
    expected = published(name)["advantages"]
    for algorithm in (RLOO(), RLP(), Reinforce(baseline="leave_one_out")):
        close(advantages_of(algorithm), expected)


def test_leave_one_out_with_the_kl_in_the_reward():
    algorithm = RLOO(kl_coefficient=0.05)
    rewards = np.array([algorithm.reward(one) for one in trajectories()])
    close(advantages_of(algorithm, rewards), published("trl_rloo_advantages_kl")["advantages"])
    assert np.abs(rewards - REWARDS).max() > 0.01


@pytest.mark.parametrize("name", ["verl_dr_grpo", "trl_advantages_none"])
def test_group_mean_baseline(name):
    expected = published(name)["advantages"]
    for algorithm in (DrGRPO(), GRPO(normalise_std=False), Reinforce(baseline="group")):
        close(advantages_of(algorithm), expected)


@pytest.mark.parametrize(("name", "eps"), [("verl_grpo", 1e-6), ("trl_advantages_group", 1e-4)])
def test_group_normalisation_divides_by_the_population_deviation(name, eps):
    """The paper says std of the group, which here is the population's (n) and there the sample's (n - 1): for n = 4
    ours are 1.15 times as large. What is added to it differs as well."""
    deviation = np.repeat(REWARDS.reshape(-1, PEERS_EACH).std(1), PEERS_EACH)
    theirs = deviation * math.sqrt(PEERS_EACH / (PEERS_EACH - 1)) + eps
    expected = published(name)["advantages"] * theirs / (deviation + 1e-6)
    for algorithm in (GRPO(), DAPO(), GSPO(), CISPO()):
        close(advantages_of(algorithm), expected)
    assert np.abs(expected).max() > 1


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("verl_gae", PPO(kl_coefficient=0)),
        ("verl_gae_discounted", PPO(kl_coefficient=0, gamma=0.97, lam=0.9)),
        ("verl_gae_kl", PPO(kl_coefficient=0.05)),
    ],
)
def test_generalised_advantages(name, algorithm):
    """Whitened with n where theirs has n - 1. Tokens between the actions are stepped over by both."""
    figure = published(name)
    advantages, returns = credited(algorithm, GIVEN["token_rewards"])
    close(advantages[MASK], figure["advantages"][MASK] * whitening(figure["raw_advantages"]))
    close(returns[MASK], figure["returns"][MASK])
    assert not advantages[~MASK].any()
    assert not returns[~MASK].any()
    unwhitened = PPO(kl_coefficient=algorithm.kl_coefficient, gamma=algorithm.gamma, lam=algorithm.lam, whiten=False)
    close(credited(unwhitened, GIVEN["token_rewards"])[0], figure["raw_advantages"])


@pytest.mark.parametrize(("name", "kl"), [("verl_reinforce_pp", 0.0), ("verl_reinforce_pp_kl", 0.05)])
def test_reinforce_plus_plus(name, kl):
    figure = published(name)
    advantages, _ = credited(ReinforcePlusPlus(kl_coefficient=kl))
    close(advantages[MASK], figure["advantages"][MASK] * whitening(figure["returns"]))
    assert not advantages[~MASK].any()


def test_reinforce_plus_plus_with_the_peers_as_baseline():
    raw = np.broadcast_to(advantage_estimators.group_mean_baseline(REWARDS, PEERS)[:, None], MASK.shape)
    advantages, _ = credited(ReinforcePlusPlus(baseline="group"))
    expected = published("verl_reinforce_pp_baseline")["advantages"][:, None] * MASK
    close(advantages, expected * whitening(raw))


# --- averages over tokens


@pytest.mark.parametrize(
    ("mode", "normalizer"),
    [
        ("token-mean", {"normalizer": "token"}),
        ("seq-mean-token-mean", {"normalizer": "sequence"}),
        ("seq-mean-token-sum", {"normalizer": "constant"}),
        ("seq-mean-token-sum-norm", {"normalizer": "constant", "constant": 7}),
    ],
)
def test_normalizers(mode, normalizer):
    agree(losses(Reinforce(**normalizer)), f"verl_agg_{mode}")


def test_the_sum_before_the_division():
    agree(losses(Reinforce()), "verl_agg_token-sum", scale=1 / NUM_ACTIONS)


# --- policy losses


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("verl_grpo_loss_seq-mean-token-mean", GRPO(clip_high=0.28)),
        ("trl_grpo", GRPO(clip_high=0.28)),
        ("verl_grpo_loss_seq-mean-token-sum-norm", DrGRPO(clip_high=0.28, constant=7)),
        ("trl_dr_grpo", DrGRPO(clip_high=0.28, constant=7)),
        ("verl_grpo_loss_token-mean", DAPO()),
        ("trl_dapo", DAPO()),
        ("trl_bnpo", DAPO()),  # differs from dapo only in what several microbatches are divided by
        ("trl_grpo_kl", GRPO(kl_coefficient=0.04)),
        ("trl_dapo_kl", DAPO(kl_coefficient=0.04)),
        ("trl_dapo_entropy", DAPO(entropy_bonus=0.01)),
        ("trl_delta", DAPO(truncate=3.0)),
        ("verl_gspo_seq-mean-token-mean", GSPO(clip_low=0.08, clip_high=0.12)),
        ("trl_gspo", GSPO(clip_low=0.08, clip_high=0.12)),
        ("verl_gspo_token-mean", GSPO(clip_low=0.08, clip_high=0.12, normalizer="token")),
        ("verl_cispo", CISPO(clip_high=0.28)),
        ("trl_cispo", CISPO(clip_high=0.28)),
        ("verl_cispo_two_sided", CISPO(clip_low=0.3, clip_high=0.28)),
        ("verl_tis_loss_token", Reinforce(truncate=1.3)),
    ],
)
def test_policy_losses(name, algorithm):
    metrics = agree(losses(algorithm), name)
    figure = published(name)
    if "clipped" in figure and not isinstance(algorithm, CISPO):
        close(metrics["clipped"] / NUM_ACTIONS, figure["clipped"])


@pytest.mark.parametrize(("name", "lower"), [("verl_cispo", 0.0), ("verl_cispo_two_sided", 0.7)])
def test_cispo_counts_clipped_tokens_that_have_an_advantage(name, lower):
    """Theirs also counts those with an advantage of 0, whose weight changes nothing."""
    metrics = losses(CISPO(clip_low=1 - lower, clip_high=0.28))[2]
    outside = MASK & ((RATIO > 1.28) | (lower > RATIO))
    silent = int((outside & (SEQUENCE == 0)).sum())
    close((metrics["clipped"] + silent) / NUM_ACTIONS, published(name)["clipped"])
    assert silent > 0


@pytest.mark.parametrize(
    ("name", "truncate"), [("verl_ppo", 0.0), ("verl_ppo_dual_clip", 3.0)], ids=["one-sided", "dual"]
)
@pytest.mark.parametrize(("value_name", "clip"), [("verl_value_loss", 0.2), ("verl_value_loss_unclipped", 0.0)])
def test_ppo_is_the_sum_of_its_two_losses(name, truncate, value_name, clip):
    """`clipped` counts what either bound cuts, which theirs counts apart."""
    algorithm = PPO(normalizer="token", truncate=truncate, value_coefficient=0.5, value_clip=clip, critic_warmup=0)
    loss, gradients, metrics = losses(algorithm, GIVEN["token_advantages"])
    policy, value = published(name), published(value_name)
    close(loss, policy["loss"] + 0.5 * value["loss"])
    close(gradients["logprobs"], policy["gradient"])
    close(gradients["head"], 0.5 * value["gradient"])
    close(metrics["clipped"] / NUM_ACTIONS, policy["clipped"] + policy.get("dual_clipped", 0))
    close(metrics["value_loss"] / NUM_ACTIONS, value["loss"])


def test_entropy_bonus_reaches_the_entropies():
    gradient = losses(DAPO(entropy_bonus=0.01))[1]["entropy"]
    close(gradient, -0.01 * MASK / NUM_ACTIONS)


def test_loss_of_leave_one_out_is_the_likelihood_of_whole_answers():
    """On samples of the current weights its gradient is theirs; the values differ, A log p there being A rho here."""
    on_policy = losses(RLOO(), behavior=GIVEN["logprobs"])[1]["logprobs"]
    close(on_policy, published("trl_rloo_loss_on_policy")["gradient"])
    close(published("trl_rloo_loss_on_policy")["loss"], -GIVEN["advantages"].mean())


def test_off_policy_leave_one_out_of_theirs_weighs_and_clips_whole_answers():
    """Theirs multiplies the gradient of an answer by its ratio, or cuts it where that is clipped; ours has no ratio
    unless `truncate` is on, and then one a token."""
    ratio = np.exp(DRIFT.sum(1))
    cut = functional.is_clipped(torch.tensor(ratio), torch.tensor(GIVEN["advantages"]), 0.2, 0.2).numpy()
    ours = losses(RLOO())[1]["logprobs"]
    close(ours * (ratio * ~cut)[:, None], published("trl_rloo_loss")["gradient"])
    assert 0 < cut.sum() < len(cut)


# --- KL


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_estimates(estimator):
    to_reference = torch.tensor(GIVEN["ref_logprobs"] - GIVEN["logprobs"])
    found = functional.kl_estimate(to_reference, estimator).numpy() * MASK
    close(found, published(f"verl_kl_{estimator}")["estimate"])


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_kl_in_the_loss(estimator):
    algorithm = GRPO(normalizer="token", kl_coefficient=1.0, kl_estimator=estimator)
    metrics = agree(losses(algorithm, np.zeros(MASK.shape)), f"verl_kl_{estimator}")
    close(metrics["reference_kl"] / NUM_ACTIONS, published(f"verl_kl_{estimator}")["loss"])


def test_k1_in_the_loss_is_refused():
    """Its gradient is the same at every token whatever the reference says, as theirs shows."""
    with pytest.raises(ValueError, match="kl_estimator=k1"):
        GRPO(kl_coefficient=1.0, kl_estimator="k1")
    close(published("verl_kl_k1")["gradient"], MASK / NUM_ACTIONS)


def test_k3_is_not_capped_at_10():
    """verl's is, which takes the gradient from tokens that have moved furthest; ours keeps it, as TRL does, up to a
    log-ratio of 20."""
    figure = published("verl_kl_k3_far")
    found = functional.kl_estimate(torch.tensor(figure["ref_minus_policy"]), "k3").numpy()
    close(np.minimum(found, 10), figure["estimate"])
    assert (found > 10).sum() == 3


# --- sequences that are left out


def test_masked_sequences_stay_in_the_divisor():
    """Theirs leaves them out of the mean's divisor as well."""
    figure = published("verl_rejection")
    kept = figure["keep"].sum()
    metrics = agree(losses(DAPO(mask_sequences=1.2)), "verl_rejection", scale=kept / NUM_ACTIONS)
    assert metrics["masked"] == NUM_ACTIONS - kept
    assert 0 < kept < NUM_ACTIONS


def test_sequence_mask_has_two_sides_and_does_not_look_at_the_advantage():
    """TRL's (DeepSeek-V3.2) drops only answers with a negative advantage that have become less likely."""
    ours = published("verl_rejection")["keep"].astype(bool).any(1)  # shown above to be ours
    exempt = (GIVEN["advantages"] >= 0) | (MEAN_DRIFT > 0)
    theirs = published("trl_off_policy_mask")["keep"].astype(bool)
    np.testing.assert_array_equal(theirs, ours | exempt)
    assert (theirs != ours).any()
    assert not theirs.all()
