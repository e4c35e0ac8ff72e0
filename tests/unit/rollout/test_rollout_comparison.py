"""Rewards of one play become advantages: what the algorithm is told, and whose tokens its answer reaches."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from helpers.rollouts import Silent, on_ranks, source_context, trajectory

from rlpt.rollout.comparison import compare
from rlpt.types import Episode, Problem


@dataclass(frozen=True)
class Noting(Silent):
    """Remembers what it is told; an advantage says which of all trajectories it is of, and what its reward was."""

    told: list = field(default_factory=list)

    def reward(self, trajectory):
        return trajectory.reward - 0.25

    def advantages(self, outcomes, baselines):
        self.told.append(outcomes)
        baselines["calls"] = baselines.get("calls", 0.0) + 1
        return 100.0 * np.arange(len(outcomes.rewards)) + outcomes.rewards


def episode_of(asked, attempt, roles=("solver",), outcome=True):
    """Each role's trajectory of `4 + problem + attempt` tokens, of which 2 are a prompt; rewards name the episode."""
    problem = asked.seed
    trajectories = [
        trajectory(
            10 * problem + attempt,
            4 + problem + attempt,
            2,
            role=role,
            peers=1000 + 10 * problem + number,
            reward=problem + attempt / 8 + number / 2,
            rewards={"correct": float(attempt == 1), "format": problem / 4},
            truncated=attempt == 2,
        )
        for number, role in enumerate(roles)
    ]
    scores = {role: float(attempt == 1) for role in roles} if outcome else {}
    return Episode(asked, trajectories, scores)


def play(problems, attempts=3, task="sort", **options):
    asked = [Problem(task, problem, problem % 3, "", "") for problem in problems]
    return [episode_of(problem, attempt, **options) for problem in asked for attempt in range(attempts)]


def test_the_algorithm_is_told_rewards_peers_roles_and_tasks():
    algorithm, baselines = Noting(), {}
    episodes = play([0, 1], 2, roles=("proposer", "solver")) + play([2], 2, task="reverse")
    compare(episodes, source_context(algorithm=algorithm), baselines)
    (told,) = algorithm.told
    every = [one for episode in episodes for one in episode.trajectories]
    rewards = np.array([0, 0.5, 0.125, 0.625, 1, 1.5, 1.125, 1.625, 2, 2.125])
    assert told.rewards.tolist() == (rewards - 0.25).tolist()
    assert told.rewards.dtype == np.float64
    assert told.peers.tolist() == [1000, 1001, 1000, 1001, 1010, 1011, 1010, 1011, 1020, 1020]
    assert told.peers.dtype == np.int64
    assert list(told.roles) == ["proposer", "solver"] * 4 + ["solver"] * 2
    assert list(told.tasks) == ["sort"] * 8 + ["reverse"] * 2
    assert [one.advantage for one in every] == [100 * i + one.reward - 0.25 for i, one in enumerate(every)]
    assert baselines == {"calls": 1}


def test_figures_and_plays_of_one_rank():
    """Rewards of problem 0: 0, 1/8, 1/4; of problem 3, whose attempts all earn the same: 3."""
    episodes = play([0, 3])
    for episode in episodes[3:]:
        episode.trajectories[0].reward = 3.0
    figures, plays = compare(episodes, source_context(algorithm=Silent()), {})
    assert plays == [("sort", 0, 0.0), ("sort", 0, 1.0), ("sort", 0, 0.0)] * 2
    assert figures == {
        "episodes": 6,
        "tokens": 2 + 3 + 4 + 5 + 6 + 7,
        "length": pytest.approx(27 / 6),
        "prompt_tokens": 4,  # two prompts of two tokens, each once
        "reward": pytest.approx((0.375 + 9) / 6),
        "reward/correct": pytest.approx(1 / 3),
        "reward/format": pytest.approx(0.375),
        "signal": 0.5,
        "truncated": pytest.approx(1 / 3),
        "success": pytest.approx(1 / 3),
    }


def test_success_needs_every_role():
    (episode,) = play([1], 1, roles=("first", "second"))
    for scores, success in (((1.0, 1.0), 1.0), ((1.0, 0.9), 0.0)):
        episode.outcome = dict(zip(("first", "second"), scores))
        _, plays = compare([episode], source_context(algorithm=Silent()), {})
        assert plays == [("sort", 1, success)]


def test_episodes_without_an_outcome_are_not_recorded():
    figures, plays = compare(play([0, 1], outcome=False), source_context(algorithm=Silent()), {})
    assert plays == []
    assert "success" not in figures
    assert figures["episodes"] == 6


@pytest.mark.parametrize("size", [2, 3])
def test_each_ranks_trajectories_get_their_own_advantages(size):
    """All ranks together are told what one is told, in rank order, and record plays in problem order."""
    problems = range(6)
    wanted_figures, wanted_plays = compare(play(problems), source_context(algorithm=Silent()), {})

    def work(rank, gather):
        episodes, algorithm, baselines = play(problems[rank::size]), Noting(), {}
        context = source_context(algorithm=algorithm, gather=gather, data_rank=rank, data_size=size)
        return episodes, algorithm.told, baselines, compare(episodes, context, baselines)

    every = [episode for rank in range(size) for episode in play(problems[rank::size])]
    rewards = [episode.trajectories[0].reward for episode in every]
    advantages = []
    for episodes, told, baselines, (figures, plays) in on_ranks(size, work):
        assert told[0].rewards.tolist() == [reward - 0.25 for reward in rewards]
        assert told[0].peers.tolist() == [episode.trajectories[0].peers for episode in every]
        assert baselines == {"calls": 1}
        assert plays == wanted_plays
        assert figures == pytest.approx(wanted_figures)
        advantages += [one.advantage for episode in episodes for one in episode.trajectories]
    assert advantages == [100 * i + reward - 0.25 for i, reward in enumerate(rewards)]


def test_the_first_tensor_ranks_verdicts_count():
    """Rewards, their parts and what single tokens earned, and what is recorded, though this rank saw nothing right."""
    first, second = play([1]), play([1])
    for index, episode in enumerate(first):
        episode.trajectories[0].token_rewards = np.arange(5.0 + index)
    for episode in second:
        episode.outcome, one = {"solver": 0.0}, episode.trajectories[0]
        one.reward, one.rewards, one.token_rewards = 0.0, {"correct": 0.0, "format": 0.0}, np.zeros(9)
    verdicts = []
    context = source_context(algorithm=Silent(), agree=lambda value: verdicts.append(value) or value)
    wanted = compare(first, context, {})
    assert wanted[1][1] == ("sort", 1, 1.0)
    told = iter(verdicts)
    seen = compare(second, source_context(algorithm=Silent(), agree=lambda value: next(told)), {})
    assert seen == wanted
    for one, other in zip(first, second):
        ours, theirs = one.trajectories[0], other.trajectories[0]
        assert (ours.reward, ours.rewards, ours.advantage) == (theirs.reward, theirs.rewards, theirs.advantage)
        assert ours.token_rewards.tolist() == theirs.token_rewards.tolist()
        assert ours.advantage > 0


@dataclass(frozen=True)
class Summing(Silent):
    """A token's advantage is its place, less the sum of the places of all ranks' actions."""

    def credit(self, trajectories, total):
        places = [np.flatnonzero(one.action_mask) for one in trajectories]
        (summed,) = total(np.array([float(sum(part.sum() for part in places))]))
        for one, part in zip(trajectories, places):
            one.token_advantages = np.zeros(len(one.token_ids), np.float32)
            one.token_advantages[part] = part - summed


def test_credit_sums_over_ranks():
    """Actions at 2..3, 2..4 | 2..4, 2..5: 37 together."""

    def work(rank, gather):
        episodes = play([rank], 2)
        compare(episodes, source_context(algorithm=Summing(), gather=gather, data_rank=rank, data_size=2), {})
        return [episode.trajectories[0].token_advantages.tolist() for episode in episodes]

    assert on_ranks(2, work) == [
        [[0, 0, -35, -34], [0, 0, -35, -34, -33]],
        [[0, 0, -35, -34, -33], [0, 0, -35, -34, -33, -32]],
    ]


def test_a_play_without_trajectories_has_no_advantages():
    """A frozen proposer's, whose proposals were all worth nothing."""
    algorithm = Noting()
    episode = episode_of(Problem("reverse", 1, 0, "", ""), 0, roles=())
    figures, plays = compare([episode], source_context(algorithm=algorithm), {})
    assert figures == {"tokens": 0, "prompt_tokens": 0, "episodes": 1}
    assert plays == []
    assert algorithm.told == []


def test_ranks_meet_once_a_play():
    """However much there is to add up over ranks."""
    calls = []
    context = source_context(algorithm=Silent(), gather=lambda value: calls.append(value) or [value, value])
    figures, _ = compare(play([0, 1]), context, {}, counts={"scored_tokens": 7})
    assert len(calls) == 1
    assert (figures["scored_tokens"], figures["episodes"], figures["prompt_tokens"]) == (14.0, 12.0, 8.0)
