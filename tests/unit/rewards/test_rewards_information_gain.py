"""The log-prob that a thought adds, against tables of next-token distributions."""

import numpy as np
import pytest
from helpers.episodes import PROBLEM, TOKENIZER, thinking, trajectory_of, values
from helpers.scorers import TabularScorer

from rlpt.errors import ConfigError
from rlpt.rewards.base import RewardContext
from rlpt.rewards.information_gain import InformationGain
from rlpt.template import encode_marked
from rlpt.types import Episode


def thought(written="p<|answer|>", evidence="c", context="ab", closed_for_it=""):
    pieces = [f"{context}<|think|>", written, *([closed_for_it] if closed_for_it else [])]
    return Episode(PROBLEM, [trajectory_of(*pieces, evidence=evidence)])


def tables(policy_seed=1, baseline_seed=2):
    size = TOKENIZER.vocab_size
    scorers = {"policy": TabularScorer(policy_seed, size), "ema": TabularScorer(baseline_seed, size)}
    return scorers, RewardContext(scorers=scorers, tokenizer=TOKENIZER)


def logprob(scorer, before, text):
    """Sum over the tokens of `text` behind the marked text `before`."""
    prefix = encode_marked(TOKENIZER, before)
    total = 0.0
    for token in TOKENIZER.encode_characters(text):
        total += scorer.logprob(prefix, token)
        prefix = [*prefix, token]
    return total


def test_gain_by_hand():
    scorers, context = tables()
    with_thought = logprob(scorers["policy"], "ab<|think|>p<|answer|>", "cd")
    plain = logprob(scorers["ema"], "ab", "cd")
    empty = logprob(scorers["ema"], "ab<|think|><|answer|>", "cd")
    assert len({with_thought, plain, empty}) == 3
    played = [thought(evidence="cd")]
    assert values(InformationGain("ema", "sum"), played, context) == pytest.approx([with_thought - plain], abs=1e-5)
    assert values(InformationGain("ema"), played, context) == pytest.approx([(with_thought - plain) / 2], abs=1e-5)
    reward = InformationGain("ema", "sum", without="thought")
    assert values(reward, played, context) == pytest.approx([with_thought - empty], abs=1e-5)


def test_the_mark_that_closes_a_thought_may_be_given():
    scorers, context = tables()
    cut = [thought("pq", "cd", closed_for_it="<|answer|>")]
    with_thought = logprob(scorers["policy"], "ab<|think|>pq<|answer|>", "cd")
    for without, before in (("marks", "ab"), ("thought", "ab<|think|><|answer|>")):
        expected = with_thought - logprob(scorers["ema"], before, "cd")
        assert values(InformationGain("ema", "sum", without), cut, context) == pytest.approx([expected], abs=1e-5)


@pytest.mark.parametrize("measure", ["mean", "sum"])
def test_an_empty_thought_is_worth_exactly_nothing_by_equal_weights(measure):
    _, context = tables(1, 1)
    closed_at_once, nothing_at_all = (
        thought("<|answer|>", "cd"),
        Episode(PROBLEM, [trajectory_of("ab", "", evidence="cd")]),
    )
    assert values(InformationGain("ema", measure, "thought"), [closed_at_once, nothing_at_all], context) == [0, 0]
    marks, nothing = values(InformationGain("ema", measure, "marks"), [closed_at_once, nothing_at_all], context)
    assert nothing == 0
    assert abs(marks) > 0.01, "read without its marks, an empty thought is not nothing"
    assert abs(values(InformationGain("ema", measure, "thought"), [thought()], context)[0]) > 0.01


@pytest.mark.parametrize(("without", "before"), [("marks", "ab"), ("thought", "ab<|think|><|answer|>")])
def test_the_expected_gain_is_a_difference_of_cross_entropies(without, before):
    """Proposition 1 of RLP: E_{x ~ p*}[r] = CE(p*, baseline) - CE(p*, policy with the thought)."""
    scorers, context = tables()
    truth = {"a": 0.5, "b": 0.3, "c": 0.2}
    gains = values(InformationGain("ema", without=without), [thought(evidence=symbol) for symbol in truth], context)
    mean = sum(p * gain for p, gain in zip(truth.values(), gains))
    baseline = -sum(p * logprob(scorers["ema"], before, symbol) for symbol, p in truth.items())
    policy = -sum(p * logprob(scorers["policy"], "ab<|think|>p<|answer|>", symbol) for symbol, p in truth.items())
    assert mean == pytest.approx(baseline - policy, abs=1e-6)
    assert abs(mean) > 0.01


def test_peers_share_a_baseline_and_their_order_of_merit_does_not_hang_on_it():
    scorers, context = tables()
    peers = [thought(written) for written in ("p<|answer|>", "q<|answer|>", "p<|answer|>", "<|answer|>")]
    found = [values(InformationGain("ema", without=without), peers, context) for without in ("marks", "thought")]
    assert np.ptp(np.subtract(*found)) == pytest.approx(0, abs=1e-12)
    assert [len(texts) for texts in scorers["ema"].calls] == [1, 1], "one call a play, and every text once"
    assert [len(texts) for texts in scorers["policy"].calls] == [3, 3]
    assert found[0][0] == found[0][2] != found[0][1]


def test_a_baseline_by_the_training_weights():
    scorers, context = tables()
    (gain,) = values(InformationGain("policy"), [thought()], context)
    policy = scorers["policy"]
    expected = logprob(policy, "ab<|think|>p<|answer|>", "c") - logprob(policy, "ab", "c")
    assert gain == pytest.approx(expected, abs=1e-5)


def test_what_can_not_be_scored_is_refused():
    _, context = tables()
    with pytest.raises(ConfigError, match="baseline=past: no such snapshot; known: policy, ema"):
        InformationGain("past").over([thought()], context)
    with pytest.raises(ConfigError, match="no evidence to judge a thought by"):
        InformationGain("ema").over([thinking("p<|answer|>1<|end|>")], context)
    with pytest.raises(ConfigError, match="nothing stands before the thought"):
        InformationGain("ema").over([thought(context="")], context)
