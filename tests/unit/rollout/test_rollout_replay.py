"""The queue of plays: every trajectory once an epoch, bounded age, exact state at any number of ranks."""

import json
from dataclasses import fields

import numpy as np
import pytest
from helpers.rollouts import on_ranks, trajectory, windowed

from rlpt.rollout.replay import Replay


def play_of(index, groups=4, size=3):
    """Trajectories that no other play holds."""
    return [[trajectory(100 * index + size * g + i, 5 + i, 2) for i in range(size)] for g in range(groups)]


def names(trajectories):
    return [int(one.advantage) - 1 for one in trajectories]


@pytest.mark.parametrize(("inner_epochs", "minibatches"), [(1, 1), (3, 1), (1, 4), (3, 5)])
def test_each_epoch_holds_every_trajectory_once_and_in_its_own_order(inner_epochs, minibatches):
    replay, orders = Replay(7, inner_epochs, minibatches), []
    for index in range(2):
        wanted = set(range(100 * index, 100 * index + 12))
        assert replay.wants_play
        replay.add(play_of(index))
        for _ in range(inner_epochs):
            parts = []
            for _ in range(minibatches):
                assert not replay.wants_play
                parts.append(names(replay.next()))
            assert sorted(name for part in parts for name in part) == sorted(wanted)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
            orders.append(tuple(name % 100 for part in parts for name in part))
    assert replay.wants_play
    if minibatches > 1:
        assert len(set(orders)) == len(orders), "another order in each epoch and of each play"
        replay = Replay(8, inner_epochs, minibatches)
        replay.add(play_of(0))
        first = [name for _ in range(minibatches) for name in names(replay.next())]
        assert first != list(orders[0]), "and by the seed"
    else:
        assert set(orders) == {tuple(range(12))}


@pytest.mark.parametrize("staleness", [0, 1, 3])
@pytest.mark.parametrize("uses", [1, 3])
def test_the_learner_is_so_many_plays_behind_the_player(staleness, uses):
    """`uses` steps a play: 3 minibatches of one epoch, or all at once."""
    replay, made, ages = Replay(7, 1, uses, staleness), [], []
    for _ in range(8 * uses):
        fresh = 0
        while replay.wants_play:
            replay.add(play_of(replay.played))
            fresh += 1
        made.append(fresh)
        (index,) = {name // 100 for name in names(replay.next())}
        ages.append(replay.played - 1 - index)
    assert made == [staleness + 1, *[0] * (uses - 1), *([1, *[0] * (uses - 1)] * 7)]
    assert ages == [staleness] * len(ages)


def full(index):
    """A trajectory with every field set, and odd bits in its arrays."""
    rng = np.random.default_rng(index)
    length = 9
    sets = np.array([3, 40, 2**40]), np.array([5])
    kept = (None, None, None, sets[0], sets[1], sets[0], sets[0], None, sets[1])
    arrays = {
        name: (rng.standard_normal(length) / 3).astype(np.float32)
        for name in ("ref_logprobs", "values", "token_advantages", "returns", "logprobs")
    }
    arrays["ref_logprobs"][:3] = np.nan, -np.inf, -0.0
    return trajectory(
        index,
        length,
        3,
        role="proposer",
        peers=(1 << 63) - 1 - index,
        kept_ids=kept,
        windows=((0, 5), (2, 9)),
        evidence_mask=np.arange(length) >= 7,
        temperature=1 / 3,
        well_formed=0.1 + 0.2,
        truncated=True,
        policy_step=4,
        reward=2 / 7,
        rewards={"correct": 1 / 3, "format": 0.1},
        token_rewards=rng.standard_normal(length),
        advantage=-(0.1**5),
        **arrays,
    )


def assert_same(one, other):
    for entry in fields(one):
        a, b = getattr(one, entry.name), getattr(other, entry.name)
        if isinstance(a, np.ndarray):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes()), entry.name
            assert b.flags.writeable, entry.name
        elif entry.name == "kept_ids" and a is not None:
            assert isinstance(b, tuple)
            assert [None if ids is None else ids.tolist() for ids in a] == [
                None if ids is None else ids.tolist() for ids in b
            ]
        else:
            assert (type(a), a) == (type(b), b), entry.name


def saved(replay, gather=lambda value: [value]):
    return json.loads(json.dumps(replay.state_dict(gather)))


def test_its_state_is_exact():
    """Plays that are half used, every field of their trajectories, groups without any, and what comes next."""
    replay = Replay(7, 2, 3, 1)
    replay.add([[full(0), full(1)], [], [windowed(2, 8)], [trajectory(3, 6, 2, np.array([1, 4]))]])
    replay.add(play_of(1))
    replay.next()
    state = saved(replay)
    again = Replay(7, 2, 3, 1)
    again.load_state_dict(state, 0, 1)
    assert [list(map(len, play.groups)) for play in again.plays] == [[2, 0, 1, 1], [3, 3, 3, 3]]
    for play, other in zip(replay.plays, again.plays, strict=True):
        assert (play.index, play.used) == (other.index, other.used)
        for group, theirs in zip(play.groups, other.groups, strict=True):
            for one, same in zip(group, theirs, strict=True):
                assert_same(one, same)
    assert saved(again) == state
    for step in range(20):
        assert replay.wants_play == again.wants_play
        if replay.wants_play:
            fresh = play_of(2 + step)
            replay.add(fresh)
            again.add(fresh)
        ours, theirs = replay.next(), again.next()
        assert len(ours) == len(theirs)
        for one, same in zip(ours, theirs):
            assert_same(one, same)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_its_state_goes_on_at_another_number_of_ranks(before, after):
    """Each rank gets its problems, all together everything once, and the state says the same everywhere."""
    plays = [play_of(0, groups=6), [*play_of(1, groups=5), []]]

    def save(rank, gather):
        replay = Replay(7, 2, 2, 1)
        for groups in plays:
            replay.add(groups[rank::before])
        replay.next()
        return saved(replay, gather)

    states = on_ranks(before, save)
    assert all(state == states[0] for state in states)

    def load(rank, gather):
        replay = Replay(7, 2, 2, 1)
        replay.load_state_dict(states[0], rank, after)
        return replay, saved(replay, gather)

    loaded = on_ranks(after, load)
    for rank, (replay, state) in enumerate(loaded):
        assert state == states[0]
        assert [play.used for play in replay.plays] == [1, 0]
        for play, groups in zip(replay.plays, plays, strict=True):
            assert [names(group) for group in play.groups] == [names(group) for group in groups[rank::after]]


def test_fewer_trajectories_than_minibatches_leave_some_empty():
    replay = Replay(7, 2, 4)
    replay.add([[trajectory(0, 5, 2)], [trajectory(1, 5, 2)], []])
    parts = [names(replay.next()) for _ in range(8)]
    for epoch in (parts[:4], parts[4:]):
        assert sorted(name for part in epoch for name in part) == [0, 1]
    assert replay.wants_play


def test_a_play_used_more_often_than_is_asked_for_now_still_ends():
    """Resumed with fewer epochs than it was saved with."""
    replay = Replay(7, 4, 1)
    replay.add(play_of(0))
    for _ in range(3):
        replay.next()
    fewer = Replay(7, 2, 1)
    fewer.load_state_dict(saved(replay), 0, 1)
    fewer.next()
    assert fewer.wants_play
