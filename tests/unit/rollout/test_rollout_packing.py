"""Packing: every action token once with its own figures, segments apart, equal shapes, legal sets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.rollouts import VOCABULARY, trajectory, windowed

from rlpt.errors import ConfigError
from rlpt.rollout.packing import COLUMNS, RowShape, counts_of, fill, has_signal, pack, spread
from rlpt.rollout.trees import arrange, share_out, views

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
    assert {batch.tokens.shape[0] for batch in batches} == {1}
    found = {}
    for batch in batches:
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


def test_rows_have_no_padding_but_to_the_multiple_and_are_of_like_length():
    """20 trajectories of 8 positions: 6 or 7 in each of three rows."""
    trajectories = [trajectory(i, 9, 3) for i in range(20)]
    batches = pack(trajectories, "play", 3, SHAPE)
    assert [batch.tokens.shape for batch in batches] == [(1, 56), (1, 56), (1, 48)]
    assert all((batch.segments >= 0).all() for batch in batches)
    assert batches[0].segments.unique().tolist() == list(range(7))
    (batch,) = pack(trajectories[:3], "play", 1, RowShape(T, V, PAD, multiple=5))
    assert batch.tokens.shape == (1, 25)
    assert (batch.segments[0, 24:] == -1).all()


def test_the_last_position_fits_and_one_more_does_not():
    [batch] = pack([trajectory(0, T + 1, 2)], "play", 1, SHAPE)
    assert batch.tokens.shape == (1, T)
    with pytest.raises(ConfigError, match=rf"episode of {T + 2} tokens does not fit batch.sequence_length={T}; raise"):
        pack([trajectory(0, T + 2, 2)], "play", 1, SHAPE)


def test_no_trajectory_is_masked_rows():
    batches = pack([], "play", 3, RowShape(T, V, PAD, multiple=4))
    assert [batch.tokens.shape for batch in batches] == [(1, 4)] * 3
    assert not any(batch.loss_mask.any() for batch in batches)
    assert all((batch.segments == -1).all() for batch in batches)


def group(index, prompt, lengths, **options):
    """Trajectories of one prompt, as many new tokens each as `lengths` says."""
    begin = trajectory(index, prompt, prompt).token_ids
    drawn = [trajectory(100 * index + i, prompt + length, prompt, **options) for i, length in enumerate(lengths)]
    return [replace(one, token_ids=np.concatenate([begin, one.token_ids[prompt:]])) for one in drawn]


def test_the_samples_of_a_prompt_stand_behind_one_copy_of_it():
    """The prompt's last token begins every branch, positions go on, and a branch has all its labels."""
    samples, other = group(1, 5, [3, 1, 4]), trajectory(7, 6, 2)
    (batch,) = pack([*samples, other], "play", 1, RowShape(32, V, PAD))
    assert batch.tokens.shape == (1, 4 + 3 + 1 + 4 + 5)
    assert batch.segments[0].tolist() == [0] * 4 + [1] * 4 + [2] * 3 + [3] + [4] * 5  # the longest sample first
    assert batch.parents[0].tolist() == [-1] * 4 + [0] * 8 + [-1] * 5
    assert batch.positions[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 4, 0, 1, 2, 3, 4]
    assert not batch.loss_mask[0, :4].any()
    assert batch.loss_mask[0, 4:12].all()
    assert batch.tokens[0, :4].tolist() == samples[0].token_ids[:4].tolist()
    for segment, sample in zip((1, 2, 3), (samples[2], samples[0], samples[1])):
        here = batch.segments[0] == segment
        assert batch.tokens[0, here].tolist() == sample.token_ids[4:-1].tolist()
        assert batch.labels[0, here].tolist() == sample.token_ids[5:].tolist()
        assert batch.behavior_logprobs[0, here].tolist() == sample.logprobs[5:].tolist()
        assert set(batch.advantages[0, here].tolist()) == {sample.advantage}
    (apart,) = pack([*samples, other], "play", 1, RowShape(32, V, PAD), share_prompt=False)
    assert apart.tokens.shape == (1, 7 + 5 + 8 + 5)
    assert apart.parents is None


def test_a_tree_that_is_too_large_is_split_and_everything_is_still_there():
    samples = group(1, 5, [9, 8, 3, 2, 2, 1])
    trees = arrange(samples, T)
    assert all(tree.size <= T for tree in trees)
    assert [[view.size - 4 for view in tree.views] for tree in trees] == [[9, 3], [8, 2, 2], [1]]
    assert [tree.stem for tree in trees] == [4, 4, 0]  # one alone has no stem
    assert sum(len(row) for row in share_out(trees, 2)) == len(trees)


def test_trajectories_that_differ_before_their_first_action_share_nothing():
    one, two = trajectory(0, 9, 5), trajectory(1, 9, 5)
    assert [tree.stem for tree in arrange([one, two], 32)] == [0, 0]
    last = replace(two, token_ids=np.concatenate([one.token_ids[:4], two.token_ids[4:]]))
    (tree,) = arrange([one, last], 32)
    assert tree.stem == 4  # the prompts' last tokens may differ: they begin the branches
    assert [tree.stem for tree in arrange([trajectory(0, 4, 1), trajectory(0, 4, 1)], 32)] == [0, 0]


def test_what_is_left_out_counts_its_labels_and_trajectories():
    """A first token that was chosen is no label."""
    chosen = trajectory(0, 8, 0)
    assert counts_of([trajectory(0, 6, 2), chosen]) == (4 + 7, 1 + 7 / 8)
    assert counts_of([]) == (0, 0)


def test_a_trajectory_has_signal_where_any_action_has_an_advantage():
    assert has_signal(trajectory(0, 6, 2))
    assert not has_signal(trajectory(0, 6, 2, advantage=0.0))
    tokens = np.zeros(6, np.float32)
    assert not has_signal(trajectory(0, 6, 2, token_advantages=tokens))
    assert has_signal(trajectory(0, 6, 2, advantage=0.0, token_advantages=tokens + (np.arange(6) == 3)))
    assert not has_signal(trajectory(0, 6, 2, token_advantages=tokens + (np.arange(6) == 1)))  # no action


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


def labels_of(batch):
    """{column: values} of the loss tokens, in order."""
    here = batch.loss_mask[0]
    return {name: getattr(batch, name)[0][here].tolist() for name in (*COLUMNS, "policy_steps")}


def test_every_action_carries_its_share_its_weights_age_and_its_reward():
    """4, 1 and 10 actions: a fourth, all and a tenth each; the last one's are spread over its windows."""
    three = [
        trajectory(0, 6, 2, policy_step=7, reward=0.5),
        trajectory(1, 5, 4, policy_step=9, reward=-1.0),
        trajectory(2, 14, 4, policy_step=8, reward=2.0, windows=((0, 6), (3, 9), (8, 14))),
    ]
    batch = fill(arrange(three, 40), "play", RowShape(40, V, PAD), 1.0)
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
    batch = fill(arrange([plain, split], T), "play", SHAPE, 1.0)
    assert labels_of(batch)["advantages"] == [1.0] * 4 + of_tokens[2:].tolist()


def test_further_columns_hold_what_trajectories_hold_and_only_they_are_there():
    """Also in microbatches that got no trajectory; off the actions nothing of them is left."""
    arrays = [np.arange(6, dtype=np.float32) + 10 * i for i in range(3)]
    one = trajectory(0, 6, 2, ref_logprobs=arrays[0], values=arrays[1], returns=arrays[2])
    full, *empty = pack([one], "play", 4, SHAPE, (*COLUMNS, "ref_logprobs", "values", "returns"))
    for name, array in zip(("ref_logprobs", "values", "returns"), arrays):
        assert getattr(full, name)[0].tolist() == [0, *array[2:].tolist()]
    for batch in empty:
        for name in (*COLUMNS, "ref_logprobs", "values", "returns"):
            assert getattr(batch, name).dtype == torch.float32
            assert getattr(batch, name).shape == batch.tokens.shape
            assert not getattr(batch, name).any()
    (few,) = pack([one], "play", 1, SHAPE, ("sequence_share",))
    assert few.sequence_share is not None
    for name in ("advantages", "behavior_logprobs", "episode_rewards", "ref_logprobs", "values", "returns"):
        assert getattr(few, name) is None


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_what_fill_lays_out_spread_takes_back(rows):
    """Over windows, shared prompts and several microbatches; what stands off the actions reaches nothing."""
    trajectories = [*some(12, seed=1), *(windowed(20 + i, T) for i in range(12)), *group(3, 6, [5, 2, 7, 1])]
    assert sum(len(views(one)) for one in trajectories) > 34, "windows move"
    trees = arrange(trajectories, T)
    assert any(tree.stem for tree in trees)
    taken = {id(one): np.full(len(one.token_ids), 7.0, np.float32) for one in trajectories}
    num_labels = 0
    for row in share_out(trees, rows):
        batch = fill(row, "play", SHAPE, 1.0)
        num_labels += int(batch.loss_mask.sum())
        spread(row, torch.where(batch.loss_mask, batch.behavior_logprobs, 99.0), taken)
    for one in trajectories:
        assert taken[id(one)].tolist() == np.where(one.action_mask, one.logprobs, 7.0).astype(np.float32).tolist()
    assert num_labels == sum(int(one.action_mask.sum()) for one in trajectories)
