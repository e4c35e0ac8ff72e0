"""Second opinions on tokens: each action's figure from the view that it was chosen in, whatever the rows are."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.rollouts import TableScorer, source_context, trajectory, windowed

from rlpt.errors import ConfigError
from rlpt.rollout.scoring import TextScorer, row_shape, score_trajectories
from rlpt.rollout.trees import views

LONGEST = 16


def context(micro_batch_size=4, **changes):
    return source_context(sequence_length=LONGEST, micro_batch_size=micro_batch_size, **changes)


def by_hand(one, weights=""):
    """(log-probs, values), each [L], token by token from the definition."""
    logprobs, values = np.zeros(len(one.token_ids)), np.zeros(len(one.token_ids))
    for view in views(one):
        for place in range(view.fresh, view.stop):
            if one.action_mask[place]:
                before, position = int(one.token_ids[place - 1]), place - 1 - view.start
                logprobs[place] = TableScorer.logprob(before, int(one.token_ids[place]), position, weights)
                values[place] = TableScorer.value(before, position)
    return logprobs, values


@pytest.mark.parametrize("micro_batch_size", [1, 3, 50])
def test_figures_of_every_action(micro_batch_size):
    items = [trajectory(i, 3 + i, 1 + i % 2) for i in range(10)] + [windowed(20 + i, LONGEST) for i in range(6)]
    given = context(micro_batch_size)
    found = score_trajectories(items, given, head="value")
    for one, scores in zip(items, found, strict=True):
        logprobs, values = by_hand(one)
        assert scores.logprobs.tolist() == logprobs.tolist()
        assert scores.values.tolist() == values.tolist()
        assert scores.logprobs.dtype == scores.values.dtype == np.float32
    batches = [batch for batch, _ in given.score.asked]
    assert max(batch.tokens.numel() for batch in batches) <= micro_batch_size * LONGEST
    assert {(batch.head, batch.objective, weights) for batch, weights in given.score.asked} == {("value", "play", "")}


def test_a_snapshot_is_asked_by_its_name_and_without_a_head_there_are_no_values():
    given, one = context(), trajectory(0, 9, 3)
    (scores,) = score_trajectories([one], given, "ema")
    assert scores.values is None
    assert scores.logprobs.tolist() == by_hand(one, "ema")[0].tolist() != by_hand(one)[0].tolist()
    assert [weights for _, weights in given.score.asked] == ["ema"]
    assert score_trajectories([], given) == []


def test_log_probs_are_those_of_the_samplers_distribution():
    given = context()
    kept = np.array([3, 4, 5])
    score_trajectories([trajectory(0, 6, 2, kept, temperature=1.4)], given)
    ((batch, _),) = given.score.asked
    assert batch.temperature == 1.4
    assert {tuple(batch.legal_table[i].nonzero()[:, 0].tolist()) for i in batch.legal_index[batch.loss_mask]} == {
        (3, 4, 5)
    }


def test_texts_are_scored_where_the_mask_says_at_temperature_1():
    given = context()
    texts = [np.array([4, 9, 2, 7]), np.array([5, 6, 1])]
    masks = [np.array([False, False, True, True]), np.array([False, True, False])]
    found = TextScorer(given, "start")(texts, masks)
    wanted = [
        [0, 0, TableScorer.logprob(9, 2, 1, "start"), TableScorer.logprob(2, 7, 2, "start")],
        [0, TableScorer.logprob(5, 6, 0, "start"), 0],
    ]
    assert [one.tolist() for one in found] == wanted
    ((batch, weights),) = given.score.asked
    assert (weights, batch.temperature, batch.legal_table) == ("start", 1.0, None)


def test_a_heads_texts_get_the_values_of_the_states_before():
    given = context()
    (found,) = TextScorer(given, head="process")([np.array([4, 9, 2])], [np.array([False, True, True])])
    assert found.tolist() == [0, TableScorer.value(4, 0), TableScorer.value(9, 1)]
    assert given.score.asked[0][0].head == "process"


def test_what_can_not_be_scored_is_an_error():
    with pytest.raises(ConfigError, match=r"18 tokens does not fit batch\.sequence_length=16"):
        score_trajectories([trajectory(0, LONGEST + 2, 1)], context())
    with pytest.raises(ValueError, match="shorter"):
        TextScorer(context())([np.array([1, 2])], [])
    with pytest.raises(AssertionError, match="no scorer"):
        score_trajectories([trajectory(0, 4, 1)], replace(context(), score=None))


def test_rows_are_the_sources():
    shape, tokenizer = row_shape(context()), context().tokenizer
    assert (shape.sequence_length, shape.vocab_size, shape.pad_id) == (LONGEST, tokenizer.vocab_size, tokenizer.pad_id)
