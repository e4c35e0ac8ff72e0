"""Packing: every action token once with its own figures, segments apart, equal shapes, legal sets."""

import numpy as np
import pytest
import torch
from helpers.rollouts import VOCABULARY, trajectory, windowed

from rlpt.errors import ConfigError
from rlpt.rollout.packing import COLUMNS, RowShape, arrange, fill, pack, spread, views

T, V, PAD = 16, VOCABULARY, 0
SHAPE = RowShape(T, V, PAD)


def some(count=20, seed=0):
    rng = np.random.default_rng(seed)
    return [
        trajectory(i, int(length), int(rng.integers(1, length)))
        for i, length in enumerate(rng.integers(2, T + 2, count))
    ]


@pytest.mark.parametrize("num_microbatches", [1, 3, 50])
def test_every_trajectory_comes_back_whole_and_once(num_microbatches):
    trajectories = some()
    batches = pack(trajectories, "play", num_microbatches, SHAPE)
    assert len(batches) == num_microbatches
    assert len({batch.tokens.shape for batch in batches}) == 1
    found = {}
    for batch in batches:
        assert batch.tokens.shape[1] == T
        assert batch.tokens.dtype == batch.labels.dtype == batch.positions.dtype == batch.segments.dtype == torch.int64
        for row in range(batch.tokens.shape[0]):
            for segment in batch.segments[row].unique().tolist():
                here = batch.segments[row] == segment
                if segment == -1:
                    assert not batch.loss_mask[row, here].any()
                    assert (batch.tokens[row, here] == PAD).all()
                    continue
                assert batch.positions[row, here].tolist() == list(range(int(here.sum())))
                key = (*batch.tokens[row, here].tolist(), int(batch.labels[row, here][-1]))
                assert key not in found
                found[key] = [
                    part[row, here]
                    for part in (batch.tokens, batch.labels, batch.loss_mask, batch.behavior_logprobs, batch.advantages)
                ]
    assert found.keys() == {tuple(item.token_ids.tolist()) for item in trajectories}
    for item in trajectories:
        tokens, labels, mask, behavior, advantages = found[tuple(item.token_ids.tolist())]
        assert labels[:-1].tolist() == tokens[1:].tolist()
        assert mask.tolist() == item.action_mask[1:].tolist()
        assert behavior[mask].tolist() == item.logprobs[item.action_mask].tolist()
        assert set(advantages[mask].tolist()) == {item.advantage}
        assert set(advantages[~mask].tolist()) <= {0.0}
    total = sum(int(batch.loss_mask.sum()) for batch in batches)
    assert total == sum(int(item.action_mask.sum()) for item in trajectories)


def test_rows_are_shared():
    """20 trajectories of 8 positions fill 10 rows of 16 exactly."""
    [batch] = pack([trajectory(i, 9, 3) for i in range(20)], "play", 1, SHAPE)
    assert batch.tokens.shape == (10, T)
    assert (batch.segments >= 0).all()
    assert {tuple(row.unique().tolist()) for row in batch.segments} == {(0, 1)}


def test_the_last_position_fits_and_one_more_does_not():
    [batch] = pack([trajectory(0, T + 1, 2)], "play", 1, SHAPE)
    assert batch.tokens.shape == (1, T)
    with pytest.raises(ConfigError, match=rf"episode of {T + 2} tokens does not fit batch.sequence_length={T}; raise"):
        pack([trajectory(0, T + 2, 2)], "play", 1, SHAPE)


def test_no_trajectory_is_masked_rows_of_the_same_shape():
    batches = pack([], "play", 3, SHAPE)
    assert [batch.tokens.shape for batch in batches] == [(1, T)] * 3
    assert not any(batch.loss_mask.any() for batch in batches)
    assert all((batch.segments == -1).all() for batch in batches)


def test_each_label_has_the_set_that_it_was_drawn_from():
    small, large = np.array([3, 4, 5]), np.array([1, 9])
    items = [trajectory(0, 6, 2, small), trajectory(1, 7, 3, large), trajectory(2, 5, 2), trajectory(3, 6, 2, small)]
    [batch] = pack(items, "play", 1, RowShape(40, V, PAD))
    assert batch.legal_table.shape == (3, V)  # everything, and each distinct set once
    assert batch.legal_table[0].all()
    seen = {}
    for row, column in batch.loss_mask.nonzero().tolist():
        allowed = batch.legal_table[batch.legal_index[row, column]].nonzero().squeeze(1).tolist()
        seen.setdefault(batch.advantages[row, column].item(), []).append(allowed)
    assert seen == {1.0: [[3, 4, 5]] * 4, 2.0: [[1, 9]] * 4, 3.0: [list(range(V))] * 3, 4.0: [[3, 4, 5]] * 4}
    assert not batch.legal_index[~batch.loss_mask].any()  # prompts and padding: the whole vocabulary


def test_without_sets_there_is_no_table():
    [batch] = pack([trajectory(0, 6, 2)], "play", 1, SHAPE)
    assert batch.legal_table is None
    assert batch.legal_index is None


def test_the_samplers_temperature_goes_with_the_batch():
    [batch] = pack([trajectory(0, 6, 2, temperature=1.3), trajectory(1, 6, 2, temperature=1.3)], "play", 1, SHAPE)
    assert batch.temperature == 1.3
    with pytest.raises(AssertionError, match="one temperature"):
        pack([trajectory(0, 6, 2, temperature=1.3), trajectory(1, 6, 2)], "play", 1, SHAPE)


def test_a_trajectory_played_through_a_window_is_scored_from_its_windows():
    whole = trajectory(0, 14, 4)
    moved = trajectory(0, 14, 4, windows=((0, 6), (3, 9), (8, 14)))
    assert [(v.start, v.fresh, v.stop) for v in views(moved)] == [(0, 0, 6), (3, 6, 9), (8, 9, 14)]
    assert [(v.start, v.fresh, v.stop) for v in views(whole)] == [(0, 0, 14)]
    (batch,) = pack([moved], "play", 1, SHAPE)
    found = {}
    for row in range(batch.tokens.shape[0]):
        for segment in batch.segments[row].unique().tolist():
            here = (batch.segments[row] == segment) & (segment >= 0)
            seen = batch.tokens[row][here].tolist()
            assert batch.positions[row][here].tolist() == list(range(len(seen)))
            for at in (here & batch.loss_mask[row]).nonzero().flatten().tolist():
                action = next(i for i in range(14) if moved.logprobs[i] == batch.behavior_logprobs[row, at])
                assert action not in found, "each action once"
                start = next(start for start, stop in moved.windows if action < stop)
                context = batch.tokens[row][here][: int(batch.positions[row, at]) + 1].tolist()
                assert context == moved.token_ids[start:action].tolist(), "from the window that it was chosen in"
                assert batch.labels[row, at] == moved.token_ids[action]
                found[action] = True
    assert sorted(found) == list(range(4, 14))


def labels_of(batch, row=0):
    """(places, {column: values}) of the loss tokens of a row, in order."""
    here = batch.loss_mask[row]
    return {name: getattr(batch, name)[row][here].tolist() for name in (*COLUMNS, "policy_steps")}


def test_every_action_carries_its_share_its_weights_age_and_its_reward():
    """4, 1 and 10 actions: a fourth, all and a tenth each; the last one's are spread over its windows."""
    three = [
        trajectory(0, 6, 2, policy_step=7, reward=0.5),
        trajectory(1, 5, 4, policy_step=9, reward=-1.0),
        trajectory(2, 14, 4, policy_step=8, reward=2.0, windows=((0, 6), (3, 9), (8, 14))),
    ]
    batch = fill(arrange(three, 40), 1, "play", RowShape(40, V, PAD), 1.0)
    assert batch.policy_steps.dtype == torch.int64
    assert batch.sequence_share.dtype == batch.episode_rewards.dtype == torch.float32
    by_step = {}
    found = labels_of(batch)
    for step, share, reward in zip(found["policy_steps"], found["sequence_share"], found["episode_rewards"]):
        by_step.setdefault(step, []).append((round(share, 6), reward))
    assert by_step == {7: [(0.25, 0.5)] * 4, 9: [(1.0, -1.0)], 8: [(0.1, 2.0)] * 10}
    for name in ("policy_steps", "sequence_share", "episode_rewards"):
        assert not getattr(batch, name)[~batch.loss_mask].any()


def test_single_tokens_advantages_go_before_the_trajectorys():
    of_tokens = np.linspace(-1, 1, 6).astype(np.float32)
    plain, split = trajectory(0, 6, 2), trajectory(1, 6, 2, token_advantages=of_tokens)
    batch = fill([[one] for one in views(plain) + views(split)], 2, "play", SHAPE, 1.0)
    assert labels_of(batch, 0)["advantages"] == [1.0] * 4
    assert labels_of(batch, 1)["advantages"] == of_tokens[2:].tolist()


def test_further_columns_hold_what_trajectories_hold_and_only_they_are_there():
    """Also in microbatches that got no trajectory; off the actions nothing of them is left."""
    arrays = [np.arange(6, dtype=np.float32) + 10 * i for i in range(3)]
    one = trajectory(0, 6, 2, ref_logprobs=arrays[0], values=arrays[1], returns=arrays[2])
    full, *empty = pack([one], "play", 4, SHAPE, (*COLUMNS, "ref_logprobs", "values", "returns"))
    for name, array in zip(("ref_logprobs", "values", "returns"), arrays):
        assert getattr(full, name)[0, :6].tolist() == [0, *array[2:].tolist(), 0]
    for batch in empty:
        for name in (*COLUMNS, "ref_logprobs", "values", "returns"):
            assert getattr(batch, name).dtype == torch.float32
            assert getattr(batch, name).shape == full.tokens.shape
            assert not getattr(batch, name).any()
    (few,) = pack([one], "play", 1, SHAPE, ("sequence_share",))
    assert few.sequence_share is not None
    for name in ("advantages", "behavior_logprobs", "episode_rewards", "ref_logprobs", "values", "returns"):
        assert getattr(few, name) is None


@pytest.mark.parametrize("rows_each", [1, 3, 100])
def test_what_fill_lays_out_spread_takes_back(rows_each):
    """Over windows and several microbatches; what stands off the actions that count reaches nothing."""
    trajectories = [*some(12, seed=1), *(windowed(20 + i, T) for i in range(12))]
    assert sum(len(views(one)) for one in trajectories) > 30, "windows move"
    rows = arrange(trajectories, T)
    taken = {id(one): np.full(len(one.token_ids), 7.0, np.float32) for one in trajectories}
    num_labels = 0
    for start in range(0, len(rows), rows_each):
        part = rows[start : start + rows_each]
        batch = fill(part, len(part), "play", SHAPE, 1.0)
        num_labels += int(batch.loss_mask.sum())
        spread(part, torch.where(batch.loss_mask, batch.behavior_logprobs, 99.0), taken)
    for one in trajectories:
        assert taken[id(one)].tolist() == np.where(one.action_mask, one.logprobs, 7.0).astype(np.float32).tolist()
    assert num_labels == sum(int(one.action_mask.sum()) for one in trajectories)
