"""What a search chose, from trajectories into batches and through checkpoints."""

import json

import numpy as np
import pytest
import torch
from helpers.rollouts import source_context, trajectory

from rlpt import registry
from rlpt.algorithms.alpha_zero import AlphaZero
from rlpt.algorithms.distill import Distill
from rlpt.batch import Batch, Scores
from rlpt.errors import ConfigError
from rlpt.rollout.packing import CANDIDATES, COLUMNS, RowShape, pack
from rlpt.rollout.replay import Replay

SHAPE = RowShape(sequence_length=20, vocab_size=50, pad_id=0)


def searched(index, length, before, counts):
    """`counts[t]` candidates of the t-th action; 0: nothing was searched there."""
    rng = np.random.default_rng(index)
    ids = [rng.choice(50, n, replace=False).astype(np.int64) if n else None for n in counts]
    weights = [rng.dirichlet(np.ones(n)).astype(np.float32) if n else None for n in counts]
    return trajectory(
        index,
        length,
        before,
        candidates=(*[None] * before, *ids),
        candidate_weights=(*[None] * before, *weights),
    )


def test_candidates_stand_at_their_labels():
    items = [searched(1, 8, 5, [3, 0, 2]), searched(2, 6, 4, [1, 5]), trajectory(3, 7, 3)]
    (batch,) = pack(items, "play", 1, SHAPE, [*COLUMNS, CANDIDATES])
    assert batch.candidates.shape == (*batch.tokens.shape, 5)
    assert batch.candidate_weights.dtype == torch.float32
    sums = batch.candidate_weights.sum(-1)
    assert int((sums > 0).sum()) == 4
    assert not sums[~batch.loss_mask].any()
    found = {}
    for row, column in (sums > 0).nonzero().tolist():
        weights = batch.candidate_weights[row, column]
        found[int(batch.labels[row, column])] = dict(
            zip(batch.candidates[row, column][weights > 0].tolist(), weights[weights > 0].tolist())
        )
    for one in items[:2]:
        for at in np.flatnonzero(one.action_mask):
            if one.candidates[at] is not None:
                wanted = dict(zip(one.candidates[at].tolist(), one.candidate_weights[at].tolist()))
                assert found[int(one.token_ids[at])] == pytest.approx(wanted)


def test_without_the_column_there_are_none_and_without_a_search_there_is_room():
    (batch,) = pack([searched(1, 8, 5, [3, 0, 2])], "play", 1, SHAPE)
    assert batch.candidates is None
    (batch,) = pack([trajectory(3, 7, 3)], "play", 1, SHAPE, [*COLUMNS, CANDIDATES])
    assert batch.candidates.shape[-1] == 1
    assert not batch.candidate_weights.any()


def test_they_wait_in_checkpoints_bit_for_bit():
    item = searched(1, 8, 5, [3, 0, 2])
    before, after = Replay(1), Replay(1)
    before.add([[item]])
    after.load_state_dict(json.loads(json.dumps(before.state_dict(lambda value: [value]))), 0, 1)
    ((again,),) = after.plays[0].groups
    for name in ("candidates", "candidate_weights"):
        for ours, theirs in zip(getattr(item, name), getattr(again, name), strict=True):
            assert (ours is None and theirs is None) or (ours.tobytes() == theirs.tobytes())


def test_alpha_zero_by_hand():
    """-(.25 log .5 + .75 log .3) + c (.2 - 1)^2, then an action that was not searched: c (.5 + 1)^2."""
    ids = torch.zeros(1, 2, dtype=torch.int64)
    batch = Batch(
        "play",
        ids,
        ids,
        ids,
        torch.ones(1, 2, dtype=torch.bool),
        ids,
        returns=torch.tensor([[1.0, -1.0]]),
        candidate_weights=torch.tensor([[[0.25, 0.75], [0.0, 0.0]]]),
    )
    scores = Scores(
        torch.zeros(1, 2),
        torch.zeros(1, 2),
        torch.tensor([[[0.5, 0.3], [0.2, 0.1]]]).log(),
        torch.tensor([[0.2, 0.5]]),
    )
    policy = -(0.25 * np.log(0.5) + 0.75 * np.log(0.3))
    terms = AlphaZero(value_coefficient=0.5)(scores, batch)
    assert terms.total.item() == pytest.approx(policy + 0.5 * (0.8**2 + 1.5**2))
    assert Distill()(scores, batch).total.item() == pytest.approx(policy)
    item = trajectory(1, 6, 4, reward=-0.5)
    AlphaZero().credit([item], lambda values: values)
    assert item.returns.tolist() == [-0.5] * 6


def test_an_algorithm_that_learns_from_a_search_wants_one():
    options = {
        "name": "episodes",
        "groups": 2,
        "selfplay": {"name": "duel"},
        "tasks": [{"task": {"name": "nim"}, "curriculum": {"target_level": 0}}],
    }
    with pytest.raises(ConfigError, match=r"play\.source\.selfplay: the algorithm learns what a search chose"):
        registry.create("source", options, "play.source").open(source_context(algorithm=AlphaZero()))
