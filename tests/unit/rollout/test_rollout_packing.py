"""Packing: every action token once with its own figures, segments apart, equal shapes, legal sets."""

import numpy as np
import pytest
import torch

from rlpt.errors import ConfigError
from rlpt.rollout.packing import pack, views
from rlpt.types import Trajectory

T, V, PAD = 16, 50, 0


def trajectory(index, length, before, kept=None, **options):
    """Tokens, log-probs and advantage that name the trajectory they are of."""
    rng = np.random.default_rng([index, length])
    actions = np.arange(length) >= before
    return Trajectory(
        role="solver",
        peers=0,
        token_ids=rng.integers(1, V, length),
        action_mask=actions,
        logprobs=np.where(actions, -index - np.arange(length) / 100, 0).astype(np.float32),
        advantage=float(index + 1),
        kept_ids=None if kept is None else (*(None for _ in range(before)), *(kept for _ in range(length - before))),
        **options,
    )


def some(count=20, seed=0):
    rng = np.random.default_rng(seed)
    return [
        trajectory(i, int(length), int(rng.integers(1, length)))
        for i, length in enumerate(rng.integers(2, T + 2, count))
    ]


@pytest.mark.parametrize("num_microbatches", [1, 3, 50])
def test_every_trajectory_comes_back_whole_and_once(num_microbatches):
    trajectories = some()
    batches = pack(trajectories, "play", num_microbatches, T, V, PAD)
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
    [batch] = pack([trajectory(i, 9, 3) for i in range(20)], "play", 1, T, V, PAD)
    assert batch.tokens.shape == (10, T)
    assert (batch.segments >= 0).all()
    assert {tuple(row.unique().tolist()) for row in batch.segments} == {(0, 1)}


def test_the_last_position_fits_and_one_more_does_not():
    [batch] = pack([trajectory(0, T + 1, 2)], "play", 1, T, V, PAD)
    assert batch.tokens.shape == (1, T)
    with pytest.raises(ConfigError, match=rf"episode of {T + 2} tokens does not fit batch.sequence_length={T}; raise"):
        pack([trajectory(0, T + 2, 2)], "play", 1, T, V, PAD)


def test_no_trajectory_is_masked_rows_of_the_same_shape():
    batches = pack([], "play", 3, T, V, PAD)
    assert [batch.tokens.shape for batch in batches] == [(1, T)] * 3
    assert not any(batch.loss_mask.any() for batch in batches)
    assert all((batch.segments == -1).all() for batch in batches)


def test_each_label_has_the_set_that_it_was_drawn_from():
    small, large = np.array([3, 4, 5]), np.array([1, 9])
    items = [trajectory(0, 6, 2, small), trajectory(1, 7, 3, large), trajectory(2, 5, 2), trajectory(3, 6, 2, small)]
    [batch] = pack(items, "play", 1, 40, V, PAD)
    assert batch.legal_table.shape == (3, V)  # everything, and each distinct set once
    assert batch.legal_table[0].all()
    seen = {}
    for row, column in batch.loss_mask.nonzero().tolist():
        allowed = batch.legal_table[batch.legal_index[row, column]].nonzero().squeeze(1).tolist()
        seen.setdefault(batch.advantages[row, column].item(), []).append(allowed)
    assert seen == {1.0: [[3, 4, 5]] * 4, 2.0: [[1, 9]] * 4, 3.0: [list(range(V))] * 3, 4.0: [[3, 4, 5]] * 4}
    assert not batch.legal_index[~batch.loss_mask].any()  # prompts and padding: the whole vocabulary


def test_without_sets_there_is_no_table():
    [batch] = pack([trajectory(0, 6, 2)], "play", 1, T, V, PAD)
    assert batch.legal_table is None
    assert batch.legal_index is None


def test_the_samplers_temperature_goes_with_the_batch():
    [batch] = pack([trajectory(0, 6, 2, temperature=1.3), trajectory(1, 6, 2, temperature=1.3)], "play", 1, T, V, PAD)
    assert batch.temperature == 1.3
    with pytest.raises(AssertionError, match="one temperature"):
        pack([trajectory(0, 6, 2, temperature=1.3), trajectory(1, 6, 2)], "play", 1, T, V, PAD)


def test_a_trajectory_played_through_a_window_is_scored_from_its_windows():
    whole = trajectory(0, 14, 4)
    windowed = trajectory(0, 14, 4, windows=((0, 6), (3, 9), (8, 14)))
    assert [(v.start, v.fresh, v.stop) for v in views(windowed)] == [(0, 0, 6), (3, 6, 9), (8, 9, 14)]
    assert [(v.start, v.fresh, v.stop) for v in views(whole)] == [(0, 0, 14)]
    (batch,) = pack([windowed], "play", 1, T, V, PAD)
    found = {}
    for row in range(batch.tokens.shape[0]):
        for segment in batch.segments[row].unique().tolist():
            here = (batch.segments[row] == segment) & (segment >= 0)
            seen = batch.tokens[row][here].tolist()
            assert batch.positions[row][here].tolist() == list(range(len(seen)))
            for at in (here & batch.loss_mask[row]).nonzero().flatten().tolist():
                action = next(i for i in range(14) if windowed.logprobs[i] == batch.behavior_logprobs[row, at])
                assert action not in found, "each action once"
                start = next(start for start, stop in windowed.windows if action < stop)
                context = batch.tokens[row][here][: int(batch.positions[row, at]) + 1].tolist()
                assert context == windowed.token_ids[start:action].tolist(), "from the window that it was chosen in"
                assert batch.labels[row, at] == windowed.token_ids[action]
                found[action] = True
    assert sorted(found) == list(range(4, 14))
