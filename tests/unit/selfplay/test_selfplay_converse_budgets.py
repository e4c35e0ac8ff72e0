"""Converse within budgets: what cuts an episode short, and episodes that go on in a later play."""

import json
from dataclasses import fields

import numpy as np
import pytest
from helpers.players import RandomGenerator, ScriptedGenerator
from helpers.tokenizer import CharacterTokenizer

import rlpt.tasks  # noqa: F401  (registers)
from rlpt import registry
from rlpt.errors import ConfigError
from rlpt.rollout.packing import RowShape, pack
from rlpt.selfplay.base import Actor
from rlpt.selfplay.converse import Converse
from rlpt.tasks.base import create_task, train_seed
from rlpt.template import END

TOKENIZER = CharacterTokenizer()
TASKS = {name: create_task({"name": name}) for name in ("memory", "grid_world", "mastermind")}
LEVEL = 3
PROBLEMS = [TASKS[name].sample(train_seed(1, index), LEVEL) for index in range(3) for name in TASKS]
KEYS = [train_seed(2, index) for index in range(len(PROBLEMS))]


def play(form, problems=PROBLEMS, keys=KEYS, step=0, memory=None, generator=None, clock=None):
    actor = Actor(generator or RandomGenerator(), TOKENIZER, clock=clock)
    return form.play(problems, TASKS, actor, keys=keys, policy_step=step, memory=memory)


def one_of(episode):
    (trajectory,) = episode.trajectories
    return trajectory


def num_turns(trajectory):
    return trajectory.token_ids[trajectory.action_mask].tolist().count(TOKENIZER.mark_id(END))


def speechless(prompt, row):
    """A player whose every turn is ill-formed, so that only its number of turns ends an episode."""
    return "zzzzzzzzzzzzzzzz"


def assert_equal(ours, theirs, but=()):
    """Two trajectories, bit for bit."""
    for entry in fields(ours):
        if entry.name in but:
            continue
        a, b = getattr(ours, entry.name), getattr(theirs, entry.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes()), entry.name
        elif entry.name == "kept_ids" and a is not None:
            assert [None if x is None else x.tolist() for x in a] == [None if x is None else x.tolist() for x in b]
        else:
            assert a == b, entry.name


def test_a_budget_of_calls_cuts_after_so_many_turns_and_says_so():
    full = play(Converse(group_size=2, legal_mask=False), generator=ScriptedGenerator(TOKENIZER, speechless))
    most = {problem.task: TASKS[problem.task].begin(problem).turns_left for problem in PROBLEMS}
    assert {one_of(e).cut for e in full} == {""}
    assert min(most.values()) > 2
    for calls in (1, 2, max(most.values())):
        form = Converse(group_size=2, legal_mask=False, max_calls=calls)
        player = ScriptedGenerator(TOKENIZER, speechless)
        for episode, whole in zip(play(form, generator=player), full, strict=True):
            trajectory, cut = one_of(episode), calls < most[episode.problem.task]
            assert (trajectory.truncated, trajectory.cut) == ((True, "calls") if cut else (False, ""))
            length = len(trajectory.token_ids)
            assert trajectory.token_ids.tolist() == one_of(whole).token_ids[:length].tolist()
            assert episode.outcome == ({"solver": 0.0} if cut else whole.outcome)
            assert trajectory.action_mask[-1]
        assert len(player.calls) == min(calls, max(most.values()))
    assert form.cuts == ("calls",)


def test_a_budget_of_tokens_says_so_even_before_the_first_turn():
    for most in (1, 40, 60):
        form = Converse(group_size=2, max_tokens=most)
        cut = [one_of(episode) for episode in play(form) if one_of(episode).truncated]
        assert {trajectory.cut for trajectory in cut} == {"tokens"}
        assert all(len(trajectory.token_ids) <= most or not trajectory.action_mask.any() for trajectory in cut)
        if most == 1:
            assert len(cut) == 2 * len(PROBLEMS)
            assert not any(trajectory.action_mask.any() for trajectory in cut)
    assert 0 < len(cut) < 2 * len(PROBLEMS)


def test_a_budget_of_time_ends_the_play_when_its_turn_is_over_by_the_actor_s_clock_alone():
    """A clock that moves on by a second whenever it is read: a play reads it at its start and after each turn."""
    whole = play(Converse(group_size=2))
    for seconds in (1, 3, 1000):
        ticks = iter(range(10_000))
        episodes = play(Converse(group_size=2, max_seconds=seconds), clock=lambda ticks=ticks: float(next(ticks)))
        for episode, other in zip(episodes, whole, strict=True):
            ours, theirs = one_of(episode), one_of(other)
            assert ours.token_ids.tolist() == theirs.token_ids[: len(ours.token_ids)].tolist()
            if ours.cut:
                assert (ours.cut, ours.truncated, episode.outcome) == ("time", True, {"solver": 0.0})
            else:
                assert_equal(ours, theirs)
        late = sum(one_of(episode).cut == "time" for episode in episodes)
        assert {1: late > 10, 3: late > 2, 1000: late == 0}[seconds]
    for episode, other in zip(play(Converse(group_size=2, max_seconds=1e-9)), whole, strict=True):
        assert_equal(one_of(episode), one_of(other))  # without a clock time does not count


class Failing(RandomGenerator):
    """Breaks in its third call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, prompts, params, keys):
        self.calls += 1
        if self.calls == 3:
            raise RuntimeError("out of memory")
        return super().__call__(prompts, params, keys)


def test_no_budget_hides_an_error():
    with pytest.raises(RuntimeError, match="out of memory"):
        play(Converse(group_size=1, max_calls=9, max_tokens=900, max_seconds=9), generator=Failing())


def in_parts(form, memory, store=lambda memory: memory, generator=None):
    """Plays until nothing waits; (episodes by key, the episodes of each play). One new problem comes with each."""
    left, found, plays = list(zip(PROBLEMS, KEYS)), {}, []
    for step in range(100):
        waiting = [(TASKS[w.task].sample(w.seed, w.level), w.key) for w in form.waiting(memory)]
        given = [*waiting, *left[:1]]
        left = left[1:]
        if not given:
            return found, plays
        problems, keys = zip(*given)
        episodes = play(form, problems, keys, step, memory, generator)
        memory.record([episode.note for episode in episodes], step)
        memory = store(memory)
        for episode in episodes:
            for trajectory in episode.trajectories:
                found.setdefault(trajectory.peers, []).append((episode, trajectory))
        plays.append(episodes)
    raise AssertionError("it never ends")


@pytest.mark.parametrize("options", [{}, {"window": 40}, {"max_tokens": 60}, {"max_calls": 3}, {"legal_mask": False}])
@pytest.mark.parametrize("calls_a_play", [1, 2])
def test_what_is_played_in_parts_is_what_is_played_at_once(options, calls_a_play):
    """The same tokens, log-probs, sets, windows and outcomes, where the weights stay the same."""
    options = {"group_size": 3, **options}
    generator = RandomGenerator() if options.get("legal_mask", True) else ScriptedGenerator(TOKENIZER, speechless)
    form = Converse(calls_a_play=calls_a_play, **options)
    whole = play(Converse(**options), generator=generator)
    parts, _ = in_parts(form, form.memory(), generator=generator)
    assert parts.keys() == set(KEYS)
    for index, episode in enumerate(whole):
        other, trajectory = parts[KEYS[index // 3]][index % 3]
        assert (other.text, other.outcome, other.problem) == (episode.text, episode.outcome, episode.problem)
        assert_equal(trajectory, one_of(episode), but=("policy_step", "policy_steps"))


@pytest.mark.parametrize("calls_a_play", [1, 2])
def test_each_token_says_which_weights_drew_it(calls_a_play):
    form = Converse(group_size=3, calls_a_play=calls_a_play)
    parts, _ = in_parts(form, form.memory())
    seen = 0
    for begun, key in enumerate(KEYS):
        for _, trajectory in parts[key]:
            turns = np.cumsum(np.diff(trajectory.action_mask.astype(int), prepend=0) == 1) - 1
            wanted = np.where(trajectory.action_mask, begun + turns // calls_a_play, 0)
            if trajectory.policy_steps is None:
                assert turns[-1] < calls_a_play
                assert trajectory.policy_step == begun
            else:
                seen += 1
                assert trajectory.policy_steps.dtype == np.int64
                assert trajectory.policy_steps.tolist() == wanted.tolist()
                assert trajectory.policy_step == wanted[-1]
    assert seen > 10


def test_a_problem_comes_back_when_all_its_episodes_are_over():
    form = Converse(group_size=4, calls_a_play=1, max_tokens=60)  # which some reach sooner than others
    _, plays = in_parts(form, form.memory())
    waited = 0
    for episodes in plays:
        keys = [one_of(episode).peers for episode in episodes if episode.trajectories]
        assert all(keys.count(key) == 4 for key in keys)
        for episode in episodes:
            if not episode.trajectories:
                assert (episode.outcome, episode.is_measured) == ({}, False)
                taken = [len(turns) for turns in episode.note["samples"]]
                assert len(taken) == 4
                waited += len(set(taken)) > 1
    assert waited, "some were over and waited for the others"


def test_what_waits_survives_json_in_the_middle_of_an_episode_bit_for_bit():
    form = Converse(group_size=3, calls_a_play=1, top_p=0.9)

    def stored(memory):
        again = form.memory()
        again.load_state_dict(json.loads(json.dumps(memory.state_dict())))
        assert again.state_dict() == memory.state_dict()
        return again

    straight, _ = in_parts(form, form.memory(), generator=Odd())
    resumed, _ = in_parts(form, form.memory(), stored, generator=Odd())
    assert resumed.keys() == straight.keys()
    for key, pairs in straight.items():
        for (episode, ours), (other, theirs) in zip(pairs, resumed[key], strict=True):
            assert (episode.text, episode.outcome) == (other.text, other.outcome)
            assert_equal(ours, theirs)


class Odd(RandomGenerator):
    """Log-probs with odd bits."""

    def __call__(self, prompts, params, keys):
        found = super().__call__(prompts, params, keys)
        for completion, key in zip(found, keys):
            completion.logprobs[:] = -np.random.default_rng(key).random(len(completion.logprobs)).astype(np.float32)
        return found


def test_without_a_memory_an_episode_is_played_to_its_end():
    """So evaluation need not know of it."""
    whole = play(Converse(group_size=2))
    for episode, other in zip(play(Converse(group_size=2, calls_a_play=1)), whole, strict=True):
        assert_equal(one_of(episode), one_of(other))


def test_noise_of_an_episode_in_parts_hangs_on_its_key_alone():
    form = Converse(group_size=2, calls_a_play=1)
    alone = form.memory()
    (first,) = play(form, PROBLEMS[:1], KEYS[:1], 0, alone)
    together = play(form, PROBLEMS, KEYS, 0, form.memory())
    assert first.note == next(e.note for e in together if e.problem is PROBLEMS[0])


def test_a_batch_says_of_each_label_which_weights_drew_it():
    form = Converse(group_size=3, calls_a_play=1, window=40)
    parts, _ = in_parts(form, form.memory())
    trajectories = [trajectory for pairs in parts.values() for _, trajectory in pairs]
    assert any(one.windows for one in trajectories)
    shape = RowShape(128, TOKENIZER.vocab_size, 0)
    batches = pack(trajectories, "play", 2, shape, ())
    found = sorted(step for batch in batches for step in batch.policy_steps[batch.loss_mask].tolist())
    wanted = [
        step
        for one in trajectories
        for step in (
            [one.policy_step] * int(one.action_mask.sum())
            if one.policy_steps is None
            else one.policy_steps[one.action_mask].tolist()
        )
    ]
    assert found == sorted(wanted)
    assert len(set(found)) > 3
    one = next(one for one in trajectories if one.policy_steps is not None and not one.windows)
    (alone,) = pack([one], "play", 1, shape, ())
    length = len(one.token_ids) - 1
    assert alone.policy_steps[0, :length].tolist() == one.policy_steps[1:].tolist()


@pytest.mark.parametrize("key", ["max_calls", "max_seconds", "calls_a_play"])
def test_wrong_budgets(key):
    with pytest.raises(ConfigError, match=f"{key}=-1(.0)?: must not be negative"):
        registry.create("selfplay", {"name": "converse", key: -1})
