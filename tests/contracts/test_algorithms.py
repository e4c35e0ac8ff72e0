"""What every registered algorithm owes, with its default options."""

import math
from dataclasses import dataclass, field, fields, replace

import numpy as np
import pytest
import torch
from helpers.played import one_rank, outcomes, trajectory

import rlpt.algorithms  # noqa: F401 (registers)
from rlpt.algorithms.base import Algorithm
from rlpt.batch import Batch, Scores
from rlpt.errors import ConfigError
from rlpt.registry import create, lookup, names
from rlpt.training.loss_slopes import loss_slopes

ALL = names("algorithm")
TARGETED = [name for name in ALL if lookup("algorithm", name).uses_targets]
REINFORCED = [name for name in ALL if lookup("algorithm", name).uses_rewards and name not in TARGETED]
# Not so: rae, which compares with what it has seen before and not with peers; ppo, whose values are what is left of
# equal rewards; expert_iteration, which imitates sets of winners too. Each has a test of its own below.
SILENT = [name for name in REINFORCED if name not in ("rae", "ppo", "expert_iteration")]
AFTER_WARMUP = 1000  # turns


def made(name) -> Algorithm:
    return create("algorithm", {"name": name})


@dataclass
class Bandit:
    """Two arms; the policy's logits and the value heads' one number are what is learnt."""

    logits: torch.Tensor = field(default_factory=lambda: torch.tensor([0.3, -0.2], requires_grad=True))
    value: torch.Tensor = field(default_factory=lambda: torch.tensor(0.4, requires_grad=True))

    def chosen(self, arms) -> torch.Tensor:
        return self.logits.log_softmax(0)[torch.as_tensor(arms)]

    def batch(self, arms, advantages, returns=None, mask=None, junk=False) -> tuple[Scores, Batch]:
        """One row whose token t is a trajectory of its own, a draw of arm `arms[t]`. The sampler's log-probs are the
        policy's, and the soft targets say .25 and .75. `junk`: what is off the mask is NaN."""
        size = len(arms)
        ids = torch.zeros(1, size, dtype=torch.int64)
        mask = torch.ones(1, size, dtype=torch.bool) if mask is None else torch.tensor([mask], dtype=torch.bool)
        logprobs = self.logits.log_softmax(0)
        chosen, values = self.chosen(arms)[None], self.value.expand(1, size)
        entropy = -(logprobs.exp() * logprobs).sum().expand(1, size)
        columns = {
            "advantages": torch.as_tensor(np.asarray(advantages, np.float32))[None],
            "behavior_logprobs": chosen.detach(),
            "ref_logprobs": chosen.detach(),
            "values": values.detach(),
            "returns": torch.ones(1, size) if returns is None else torch.as_tensor(np.float32(returns))[None],
            "sequence_share": torch.ones(1, size),
            "candidate_weights": torch.tensor([0.25, 0.75]).expand(1, size, 2),
        }
        if junk:
            columns = {
                key: torch.where(mask[..., None] if value.ndim == 3 else mask, value, torch.nan)
                for key, value in columns.items()
            }
        batch = Batch(
            "play",
            ids,
            torch.as_tensor(arms)[None],
            ids,
            mask,
            torch.arange(size)[None],
            turn=AFTER_WARMUP,
            **columns,
        )
        return Scores(chosen, entropy, logprobs.expand(1, size, 2), values), batch

    def gradient(self) -> torch.Tensor:
        """Of the logits and of the value, [3]."""
        found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (self.logits, self.value)]
        return torch.cat([found[0], found[1][None]])


def credited(algorithm, arms, rewards, bandit, baselines) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns [N] of one play of one-token trajectories in sets of 8, as a source of episodes asks for
    them; the reference is the policy that knows nothing."""
    chosen = bandit.chosen(arms).tolist()
    played = [
        trajectory([0, 1], float(r), logprobs=[0.0, c], ref_logprobs=[0.0, -math.log(2)], values=[0.0, float(v)])
        for r, c, v in zip(rewards, chosen, bandit.value.detach().expand(len(arms)), strict=True)
    ]
    compared = [algorithm.reward(one) for one in played]
    found = algorithm.advantages(outcomes(compared, np.arange(len(arms)) // 8), baselines)
    for one, advantage in zip(played, found, strict=True):
        one.advantage = float(advantage)
    algorithm.credit(played, one_rank)
    advantages = [one.advantage if one.token_advantages is None else one.token_advantages[1] for one in played]
    returns = [0.0 if one.returns is None else one.returns[1] for one in played]
    return np.array(advantages), np.array(returns)


def gradient(name, arms, advantages, **options):
    bandit = Bandit()
    terms = made(name)(*bandit.batch(arms, advantages, **options))
    assert terms.total.shape == ()
    terms.total.backward()
    return terms, bandit.gradient()


def test_the_expected_algorithms_are_registered():
    supervised = {"next_token", "distill", "value_regression", "alpha_zero"}
    group = {"reinforce", "rloo", "grpo", "dr_grpo", "dapo", "gspo", "cispo", "maxrl", "rlp"}
    assert set(ALL) == supervised | group | {"reinforce_plus_plus", "ppo", "rae", "task_role", "expert_iteration"}
    assert supervised == set(ALL) - set(REINFORCED)


@pytest.mark.parametrize("name", ALL)
def test_an_unknown_option_is_named(name):
    with pytest.raises(ConfigError, match=r"objectives\.play\.algorithm\.wheels: unknown key"):
        create("algorithm", {"name": name, "wheels": 4}, "objectives.play.algorithm")


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
    assert twice.maxima == once.maxima


@pytest.mark.parametrize("name", ALL)
def test_the_count_is_a_sum_over_microbatches(name):
    """Tokens or trajectories: here each token is one."""
    for arms, count in (([0], 1), ([0, 1, 1], 3)):
        assert made(name).count(Bandit().batch(arms, [1.0] * len(arms))[1]) == count
    masked = Bandit().batch([0, 1, 1], [1.0] * 3, mask=[1, 0, 1], junk=True)[1]
    assert made(name).count(masked) == 2


@pytest.mark.parametrize("name", ALL)
def test_what_is_off_the_mask_does_not_count(name):
    with_junk, gradient_with = gradient(name, [0, 1, 1], [1.0, -0.5, 2.0], mask=[1, 1, 0], junk=True)
    without, gradient_without = gradient(name, [0, 1], [1.0, -0.5])
    torch.testing.assert_close(gradient_with, gradient_without)
    torch.testing.assert_close(with_junk.total, without.total)
    torch.testing.assert_close(with_junk.metrics, without.metrics)
    torch.testing.assert_close(with_junk.maxima, without.maxima)


@pytest.mark.parametrize("name", ALL)
def test_a_microbatch_without_loss_tokens_has_a_zero_loss_with_a_graph(name):
    terms, zero = gradient(name, [0, 1], [1.0, -0.5], mask=[0, 0], junk=True)
    assert terms.total.item() == 0
    assert zero.tolist() == [0, 0, 0]
    filled = gradient(name, [0], [1.0])[0]
    assert terms.metrics.keys() == filled.metrics.keys()
    assert terms.maxima.keys() == filled.maxima.keys()
    assert not any(value.item() for value in [*terms.metrics.values(), *terms.maxima.values()])


@pytest.mark.parametrize("name", ALL)
def test_figures_are_finite_numbers(name):
    terms, _ = gradient(name, [0, 1], [1.0, -0.5])
    described = made(name).describe({key: float(value) / 2 for key, value in terms.metrics.items()})
    assert all(math.isfinite(value) for value in described.values())


@pytest.mark.parametrize("name", REINFORCED)
def test_a_good_token_becomes_likelier_and_a_bad_one_less_likely(name):
    assert gradient(name, [1], [1.0])[1][1] < 0
    assert gradient(name, [1], [-1.0])[1][1] > 0


@pytest.mark.parametrize("name", SILENT)
def test_a_group_of_equal_rewards_has_exactly_no_gradient(name):
    arms = [0, 1, 0, 0, 1, 1]
    advantages, _ = credited(made(name), arms, np.full(6, 0.1), Bandit(), {})
    assert not advantages.any()
    assert not gradient(name, arms, advantages)[1].any()


def test_equal_rewards_are_silent_to_rae_once_its_baseline_knows_them():
    """The first play has all of the reward as advantage; what the baseline hasn't seen yet shrinks by .95 a play."""
    baselines = {}
    found = [float(credited(made("rae"), [0], [0.5], Bandit(), baselines)[0][0]) for _ in range(300)]
    assert found[:3] == pytest.approx([0.5, 0.475, 0.45125])
    assert 0 < abs(found[-1]) < 1e-6
    assert not credited(made("rae"), [0, 1], [0.1, 0.1], Bandit(), {"task/solver": 0.1})[0].any()


def test_equal_rewards_leave_ppo_its_value_to_learn():
    """Whitening takes off what all have in common, but for rounding; the value head learns what they are worth."""
    algorithm, arms = replace(made("ppo"), kl_coefficient=0.0), [0, 1, 0, 0, 1, 1]
    advantages, returns = credited(algorithm, arms, np.full(6, 0.1), Bandit(), {})
    assert returns == pytest.approx([0.1] * 6)
    bandit = Bandit()
    algorithm(*bandit.batch(arms, advantages, returns)).total.backward()
    assert bandit.gradient()[:2].abs().max() < 1e-6
    assert bandit.gradient()[2] == pytest.approx(6 * (0.4 - 0.1))


@pytest.mark.parametrize("reward", [0.0, 0.1, 0.99])
def test_without_a_winner_expert_iteration_has_exactly_no_gradient(reward):
    arms = [0, 1, 0, 0, 1, 1]
    advantages, _ = credited(made("expert_iteration"), arms, np.full(6, reward), Bandit(), {})
    assert not advantages.any()
    terms, zero = gradient("expert_iteration", arms, advantages)
    assert not zero.any()
    assert terms.total.item() == 0
    assert made("expert_iteration").count(Bandit().batch(arms, advantages)[1]) == 0


@pytest.mark.parametrize("name", REINFORCED)
def test_a_two_armed_bandit_is_solved(name):
    algorithm, baselines = made(name), {}
    bandit = Bandit(torch.zeros(2, requires_grad=True), torch.tensor(0.0, requires_grad=True))
    generator = torch.Generator().manual_seed(0)
    for turn in range(300):
        arms = torch.multinomial(bandit.logits.detach().softmax(0), 32, replacement=True, generator=generator)
        advantages, returns = credited(algorithm, arms, arms.numpy(), bandit, baselines)
        scores, batch = bandit.batch(arms, advantages, returns)
        loss = algorithm(scores, replace(batch, turn=turn)).total / algorithm.count(batch)
        found = torch.autograd.grad(loss, (bandit.logits, bandit.value), allow_unused=True)
        with torch.no_grad():
            for leaf, gradient in zip((bandit.logits, bandit.value), found, strict=True):
                leaf -= 0.3 * (0 if gradient is None else gradient)
    assert bandit.logits.softmax(0)[1] > 0.95
    if algorithm.head:  # its value of the one state there is: the reward less the KL of 0.05 log 2
        assert bandit.value.item() == pytest.approx(1 - 0.05 * math.log(2), abs=0.05)


@pytest.mark.parametrize("name", [name for name in ALL if made(name).is_token_local])
def test_a_token_local_loss_has_the_same_slopes_token_by_token(name):
    algorithm, bandit = made(name), Bandit()
    arms, advantages = [0, 1, 1, 0, 1], [1.0, -0.5, 2.0, 0.0, -1.5]
    scores, batch = bandit.batch(arms, advantages)
    moved = torch.linspace(-0.4, 0.4, len(arms))[None]
    scores = replace(scores, logprobs=scores.logprobs.detach() + moved, values=scores.values.detach())
    whole = loss_slopes(algorithm)(scores, batch)
    for place in range(len(arms)):
        at = torch.tensor([place])
        alone = Scores(*(getattr(scores, key.name)[:, at] for key in fields(scores)))
        found = loss_slopes(algorithm)(alone, batch.tokens_at(at))
        for key in ("logprobs", "entropy", "candidate_logprobs"):
            torch.testing.assert_close(getattr(found, key), getattr(whole, key)[:, at])
    assert max(whole.logprobs.abs().max(), whole.candidate_logprobs.abs().max()) > 0.1


def test_which_losses_look_at_each_token_alone():
    assert {name for name in ALL if not made(name).is_token_local} == {"gspo", "value_regression"}
    assert not create("algorithm", {"name": "grpo", "mask_sequences": 2.0}).is_token_local
