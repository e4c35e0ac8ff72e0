"""The episode source over steps: which plays a step learns from, what is asked of the model, refill, exact resume."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from helpers.rollouts import (
    GROUP_SIZE,
    GROUPS,
    Silent,
    TableScorer,
    assert_equal_batches,
    episodes_on_ranks,
    open_episodes,
    source_context,
    text_before,
)

from rlpt.algorithms.base import LossTerms
from rlpt.algorithms.ppo import PPO
from rlpt.algorithms.reinforce import Reinforce
from rlpt.config_objectives import Ramp
from rlpt.rewards.base import Rubric, RubricPart
from rlpt.rollout.trees import arrange

FIXED = {"tasks": [{"task": {"name": "reverse"}, "curriculum": {"target_level": 0}}]}  # no level ever moves


def keys_of(batches):
    """How often each label with a loss is there, by what tells it from all others: tokens and log-probs are its own."""
    found = Counter()
    for batch in batches:
        for row, place in batch.loss_mask.nonzero().tolist():
            text = text_before(batch, row, place)
            found[(*text, int(batch.labels[row, place]), int(batch.policy_steps[row, place]))] += 1
    return found


@pytest.mark.parametrize(("inner_epochs", "minibatches"), [(2, 1), (1, 4), (2, 3)])
def test_a_play_is_learned_from_in_every_epoch_and_counted_once(inner_epochs, minibatches):
    source = open_episodes(inner_epochs=inner_epochs, minibatches=minibatches, score_silent=True)
    steps = inner_epochs * minibatches
    for play in range(2):
        taken, parts = [source.take(2, step=play * steps)], [len(source.last_trajectories)]
        figures = source.metrics()
        assert figures["episodes"] == GROUPS * GROUP_SIZE
        assert figures["tokens"] > 0
        assert "signal" in figures
        assert source.problems_drawn == GROUPS * (play + 1)
        played = source.last_episodes
        wanted = [one for episode in played for one in episode.trajectories]
        for further in range(1, steps):
            taken.append(source.take(2, step=play * steps + further))
            parts.append(len(source.last_trajectories))
            quiet = {"episodes": 0, "tokens": 0, "prompt_tokens": 0, "scored_tokens": 0}
            assert source.metrics() == quiet | {"age": further}, "nothing was played"
            assert source.last_episodes is played
        assert sum(parts) == inner_epochs * len(wanted)
        assert max(parts) - min(parts) <= 1
        epochs = [taken[at : at + minibatches] for at in range(0, steps, minibatches)]
        each = [sum(map(keys_of, epoch), Counter()) for epoch in epochs]
        assert all(epoch == each[0] for epoch in each)
        assert sum(each[0].values()) == sum(int(one.action_mask.sum()) for one in wanted)
        assert [batch.turn for batches in taken for batch in batches] == [
            play * steps + i for i in range(steps) for _ in range(2)
        ]


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_a_step_learns_from_weights_so_many_steps_old(staleness):
    source = open_episodes(staleness=staleness)
    for step in range(6):
        batches = source.take(1, step=step)
        (age,) = set(batches[0].policy_steps[batches[0].loss_mask].tolist())
        assert age == max(0, step - staleness)
        fresh = staleness + 1 if step == 0 else 1
        assert source.metrics()["episodes"] == fresh * GROUPS * GROUP_SIZE
        assert source.problems_drawn == (staleness + 1 + step) * GROUPS


def placed(batches, column):
    """{(token, label, position): values} of a column's labels with a loss."""
    found = {}
    for batch in batches:
        for row, place in batch.loss_mask.nonzero().tolist():
            key = [int(getattr(batch, name)[row, place]) for name in ("tokens", "labels", "positions")]
            found.setdefault(tuple(key), set()).add(float(getattr(batch, column)[row, place]))
    return found


def test_a_kl_term_gets_the_log_probs_of_the_snapshot_that_it_refers_to():
    scorer = TableScorer()
    algorithm = Reinforce(kl_coefficient=0.1)
    context = source_context(score=scorer, algorithm=algorithm, reference="start", snapshots=("start", "ema"))
    source = open_episodes(context)
    found = placed(source.take(2), "ref_logprobs")
    assert len(found) > 15
    assert found == {key: {TableScorer.logprob(*key, weights="start")} for key in found}
    assert {weights for _, weights in scorer.asked} == {"start"}
    assert {batch.head for batch, _ in scorer.asked} == {""}
    positions = sum(tree.size for tree in arrange(source.last_trajectories, context.sequence_length))
    assert positions < sum(len(one.token_ids) - 1 for one in source.last_trajectories), "prompts are shared"
    assert source.metrics()["scored_tokens"] == positions
    again = open_episodes(context, inner_epochs=2)
    first, asked = again.take(2), len(scorer.asked)
    assert_equal_batches([replace(batch, turn=0) for batch in again.take(2)], first)
    assert len(scorer.asked) == asked, "once a play"


def test_a_kl_term_in_the_reward_sees_them_too():
    algorithm = Reinforce(kl_coefficient=0.5, kl_in="reward", kl_estimator="k1", baseline="none")
    source = open_episodes(source_context(algorithm=algorithm, reference="start"))
    source.take(1)
    for one in source.last_trajectories:
        penalty = 0.5 * float((one.logprobs - one.ref_logprobs)[one.action_mask].sum())
        assert one.advantage == pytest.approx(one.reward - penalty, abs=1e-5)
        assert penalty != 0


@dataclass(frozen=True)
class Critic(Silent):
    """Returns are the values that were said, and ten more."""

    head: ClassVar[str] = "value"

    def credit(self, trajectories, total):
        for one in trajectories:
            one.returns = np.where(one.action_mask, one.values + 10, 0).astype(np.float32)


def test_a_value_head_is_asked_when_it_is_played_and_goes_with_the_batch():
    scorer = TableScorer()
    source = open_episodes(source_context(score=scorer, algorithm=Critic()))
    batches = source.take(2)
    values, returns = placed(batches, "values"), placed(batches, "returns")
    assert values == {key: {TableScorer.value(key[0], key[2])} for key in values}
    assert returns == {key: {value + 10 for value in said} for key, said in values.items()}
    assert {(batch.head, weights) for batch, weights in scorer.asked} == {("value", "")}
    assert {batch.head for batch in batches} == {"value"}
    assert all(batch.ref_logprobs is None for batch in batches)


def test_a_head_learns_alone_while_its_algorithm_says_so():
    algorithm = PPO(kl_coefficient=0.0, critic_warmup=3)
    source = open_episodes(source_context(score=TableScorer(), algorithm=algorithm), inner_epochs=2)
    assert [{one.head_alone for one in source.take(2, step=step)} for step in range(5)] == [{True}] * 3 + [{False}] * 2


@pytest.mark.parametrize("size", [2, 4])
def test_what_is_scored_is_counted_over_all_ranks(size):
    """The same on every rank, and what one rank counts."""

    def figures(source, rank):
        source.rubric = Rubric((RubricPart("asking", Asking()),))
        source.take(1)
        return source.metrics()

    one = figures(open_episodes(**FIXED), 0)
    parts = episodes_on_ranks(size, figures, **FIXED)
    assert parts == [pytest.approx(one)] * size
    assert one["scored_tokens"] == one["tokens"] + one["prompt_tokens"] * GROUP_SIZE - GROUPS * GROUP_SIZE


class Asking:
    """A reward: the policy's own log-probs of what was said."""

    def over(self, episodes, context):
        texts = [one for episode in episodes for one in episode.trajectories]
        found = context.scorers["policy"]([one.token_ids for one in texts], [one.action_mask for one in texts])
        values = iter(float(one.sum()) for one in found)
        return [[next(values) for _ in episode.trajectories] for episode in episodes]


class Looking:
    """A reward that notes what it may ask, and wants the last texts."""

    uses_recent = True

    def __init__(self):
        self.seen = []

    def over(self, episodes, context):
        self.seen.append(context)
        return [[0.0 for _ in episode.trajectories] for episode in episodes]


def test_rewards_may_ask_for_snapshots_heads_tasks_and_the_last_texts():
    looking, scorer = Looking(), TableScorer()
    context = source_context(score=scorer, snapshots=("start", "ema"), heads=("value", "process"))
    source = open_episodes(context, groups=40)
    source.rubric = Rubric((RubricPart("looking", looking),))
    texts = []
    for step in range(3):
        source.take(1, step=step)
        assert list(looking.seen[step].recent) == texts[-256:], "of the plays before this one"
        texts += [episode.text for episode in source.last_episodes]
    assert len(texts) == 480
    (first, *_) = looking.seen
    assert first.tasks.keys() == {"reverse", "sort"}
    assert first.tokenizer is context.tokenizer
    assert (first.scorers.keys(), first.heads.keys()) == ({"policy", "start", "ema"}, {"value", "process"})
    asked = [np.array([3, 4])], [np.array([False, True])]
    assert first.scorers["ema"](*asked)[0].tolist() == [0, TableScorer.logprob(3, 4, 0, "ema")]
    assert first.scorers["policy"](*asked)[0].tolist() == [0, TableScorer.logprob(3, 4, 0)]
    assert first.heads["process"](*asked)[0].tolist() == [0, TableScorer.value(3, 0)]
    assert scorer.asked[-1][0].head == "process"


def test_the_last_texts_are_in_problem_order_on_every_rank_and_kept_only_where_they_are_wanted():
    def recent(source, rank):
        source.rubric = Rubric((RubricPart("looking", Looking()),))
        for step in range(2):
            source.take(1, step=step)
        return source.state_dict()["recent"]

    wanted = recent(open_episodes(), 0)
    assert len(set(wanted)) > 20
    assert episodes_on_ranks(2, recent) == [wanted] * 2
    source = open_episodes()
    source.take(1)
    assert source.state_dict()["recent"] == []


def test_weights_of_rewards_follow_the_step():
    rubric = Rubric.from_config([{"name": "format", "weight": {"start": 1.0, "end": 3.0, "steps": 4}}])
    assert isinstance(rubric.parts[0].weight, Ramp)
    for step, weight in ((0, 1.0), (2, 2.0), (9, 3.0)):
        source = open_episodes()
        source.rubric = rubric
        source.take(1, step=step)
        assert {round(one.reward, 6) for one in source.last_trajectories} == {0.0, weight}


@dataclass(frozen=True)
class Signals:
    """A reward: of these problems, by their number, one attempt earns 1; all else earns 0."""

    seeds: dict[int, int]  # seed -> number
    loud: frozenset[int]

    def over(self, episodes, context):
        return [
            [float(self.seeds[one.problem.seed] in self.loud and place % GROUP_SIZE == 1)]
            for place, one in enumerate(episodes)
        ]


def refilling(source, loud):
    """The source with signal in these problems alone."""
    seeds = {problem.seed: number for number, problem in enumerate(source.problems.draw(range(100)))}
    source.rubric = Rubric((RubricPart("signals", Signals(seeds, frozenset(loud))),))
    return source


REFILL = {**FIXED, "groups": 4, "skip_silent": True}


@pytest.mark.parametrize(
    ("loud", "refill", "drawn", "with_signal"),
    [
        (range(100), 3, 4, 4),  # enough at once
        ((), 3, 16, 0),  # bounded: 4 rounds of 4
        ((), 0, 4, 0),
        ((5, 9, 10), 3, 4 + 4 + 3 + 1, 3),  # none, one, two more; the last round asks for the one that is missing
        ((5, 9, 10), 2, 4 + 4 + 3, 3),
        ((1, 2, 3, 4, 50), 3, 5, 4),
    ],
)
def test_refill_plays_on_until_enough_groups_have_signal(loud, refill, drawn, with_signal):
    source = refilling(open_episodes(**REFILL, refill=refill), loud)
    batches = source.take(2)
    assert source.problems_drawn == drawn
    figures = source.metrics()
    assert figures["episodes"] == drawn * GROUP_SIZE
    assert figures["signal"] == pytest.approx(with_signal / drawn)
    learned = Counter(one.peers for one in source.last_trajectories)
    assert learned == Counter(dict.fromkeys(learned, GROUP_SIZE))
    assert len(learned) == with_signal
    assert any(batch.loss_mask.any() for batch in batches) == bool(with_signal)
    assert len(source.last_episodes) == drawn * GROUP_SIZE


def test_refill_begins_at_its_step():
    source = refilling(open_episodes(**REFILL, refill=2, refill_from=5), ())
    for step, drawn in ((0, 4), (4, 4), (5, 12), (6, 12)):
        before = source.problems_drawn
        source.take(1, step=step)
        assert source.problems_drawn - before == drawn


@pytest.mark.parametrize("loud", [(5, 9, 10), (0, 2, 4, 6, 7), (3,), range(0, 100, 3)])
def test_refill_draws_the_same_on_all_ranks(loud):
    """Three groups that are missing are four for two ranks: so much more than one rank is drawn, and no more."""

    def work(source, rank):
        refilling(source, loud)
        for step in range(3):
            source.take(2, step=step)
        return source.problems_drawn, source.metrics(), source.state_dict(), len(source.last_episodes)

    (first, second) = episodes_on_ranks(2, work, **REFILL, refill=3)
    assert first == second
    assert first[0] % 2 == 0
    alone = work(open_episodes(**REFILL, refill=3), 0)
    assert alone[0] <= first[0] <= alone[0] + 2 * 3 * 3


@dataclass(frozen=True)
class Running(Silent):
    """The least with a state: rewards less their running mean, read before it is moved on."""

    def __call__(self, scores, batch):
        return LossTerms(scores.logprobs.sum(), {})

    def advantages(self, outcomes, baselines):
        before = baselines.get("mean", 0.0)
        baselines["mean"] = 0.7 * before + 0.3 * float(outcomes.rewards.mean())
        return outcomes.rewards - before


NOVEL = [{"name": "correct", "weight": 1.0}, {"name": "novelty", "weight": 0.3, "ngram": 2}]
THINKING = {"name": "solve", "group_size": GROUP_SIZE, "think": True, "max_thought": 6}


@pytest.mark.parametrize("stop", [1, 3, 4, 7])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"staleness": 2, "minibatches": 2, "rubric": NOVEL, "selfplay": THINKING},
        {"staleness": 1, "minibatches": 3, "inner_epochs": 2, "skip_silent": True, "refill": 1},
    ],
    ids=["plain", "stale", "reused"],
)
def test_a_resumed_source_goes_on_exactly(changes, stop):
    """Tokens, advantages, baselines, recent texts, curriculum, and everything else that batches hold."""

    def opened():
        return open_episodes(source_context(algorithm=Running()), **changes)

    through, first = opened(), opened()
    for step in range(stop):
        through.take(2, step=step)
        first.take(2, step=step)
    resumed, fresh = opened(), opened()
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert resumed.state_dict() == first.state_dict()
    differs = False
    for step in range(stop, stop + 7):
        wanted = through.take(2, step=step)
        assert_equal_batches(resumed.take(2, step=step), wanted)
        assert resumed.metrics() == through.metrics()
        differs |= fresh.take(2, step=step)[0].tokens.tolist() != wanted[0].tokens.tolist()
    assert differs
    assert resumed.state_dict() == through.state_dict()
    assert through.baselines["mean"] > 0
    assert bool(through.recent) == ("selfplay" in changes)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4)])
def test_stale_plays_go_on_at_another_number_of_ranks(before, after):
    """Each trajectory that was waiting is learned from once, and what is drawn next is the same."""

    def save(source, rank):
        for step in range(2):
            source.take(1, step=step)
        return source.state_dict()

    def go_on(source, rank):
        source.load_state_dict(state)
        learned = Counter()
        for step in range(2, 6):
            source.take(1, step=step)
            learned.update((one.peers, *one.token_ids.tolist(), one.policy_step) for one in source.last_trajectories)
        return learned, source.state_dict()

    (state, *others) = episodes_on_ranks(before, save, staleness=2)
    assert all(other == state for other in others)
    state = json.loads(json.dumps(state))
    wanted, after_one = go_on(open_episodes(staleness=2), 0)
    parts = episodes_on_ranks(after, go_on, staleness=2)
    assert sum((learned for learned, _ in parts), Counter()) == wanted
    assert all(found == after_one for _, found in parts)
