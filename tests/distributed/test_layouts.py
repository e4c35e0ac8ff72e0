"""The same numbers in every layout: losses, gradients, log-probs and sampled tokens at 1 and 2 ranks.

Tolerances: 1e-5 is some 20 times the largest difference that was measured in float32 (8e-7), 1e-12 some 4,000 times
the largest in float64. The smallest figure that is compared is 1e-2, so nothing passes by being zero.
"""

import numpy as np
import pytest
from helpers.launches import layout_results

TWO_RANKS = ["tensor", "sequence", "pipeline", "data", "data_replicated_optimizer"]
PLAYING = ["tensor", "sequence", "data", "data_replicated_optimizer"]


@pytest.fixture(scope="session")
def single():
    return layout_results(1)["single"]


@pytest.fixture(scope="session")
def double():
    return layout_results(2)


def largest_difference(one, other):
    """Over all numbers of two ragged tables of the same shape."""
    assert [len(row) for row in one] == [len(row) for row in other]
    return max(abs(a - b) for left, right in zip(one, other) for a, b in zip(left, right))


def relative(one, other):
    return np.linalg.norm(np.subtract(one, other)) / np.linalg.norm(other)


@pytest.mark.parametrize("layout", TWO_RANKS)
def test_twenty_steps_are_those_of_one_rank(single, double, layout):
    """[text loss, play loss, gradient norm] a step; every fifth also each objective's norm and their cosine."""
    assert [len(row) for row in single["steps"]] == [3, 3, 3, 3, 6] * 4
    assert largest_difference(double[layout]["steps"], single["steps"]) < 1e-5


@pytest.mark.parametrize("layout", TWO_RANKS)
def test_an_evaluation_scores_text_alike(single, double, layout):
    assert double[layout]["score"] == pytest.approx(single["score"], rel=1e-5)
    assert single["score"][0] < -50
    assert single["score"][1] > 50


@pytest.mark.parametrize("layout", ["tensor", "pipeline"])
def test_an_untied_head_too(single, double, layout):
    assert largest_difference(double[layout]["untied"], single["untied"]) < 1e-5
    assert largest_difference(single["untied"], single["steps"]) > 1e-3  # it is another model


def test_the_compared_steps_move(single):
    """Negative control: figures that are zero, or that do not change from step to step, would prove nothing."""
    figures = np.array([row[:3] for row in single["steps"]])
    assert np.isfinite(figures).all()
    assert (np.abs(figures) > 1e-2).all()
    assert (np.abs(np.diff(figures, axis=0)).max(axis=0) > 1e-3).all()
    cosines = [row[5] for row in single["steps"][4::5]]
    assert all(1e-3 < abs(cosine) < 1 for cosine in cosines)


@pytest.mark.parametrize("how", ["mixed", "reversed", "split"])
def test_the_gradient_is_the_weighted_sum_of_its_parts(single, double, how):
    """In float64; `split`: microbatches of one row, `reversed`: the other order of rows and objectives."""
    one, two = single["gradients"], double["data"]["gradients"]
    wanted = np.add(one["text"], 0.7 * np.array(one["play"]))
    assert relative(one[how], wanted) < 1e-12
    assert relative(two[how], wanted) < 1e-12


def test_rows_of_episodes_leave_the_gradient_of_text_alone(single, double):
    one, two = single["gradients"], double["data"]["gradients"]
    assert relative(one["text_of_mix"], one["text"]) < 1e-12
    assert relative(two["text_of_mix"], one["text"]) < 1e-12
    assert relative(one["mixed"], one["text"]) > 1e-2  # they are in the mix
    assert relative(np.add(one["text"], one["play"]), one["mixed"]) > 1e-2  # and the coefficient tells
    assert min(np.linalg.norm(one["text"]), np.linalg.norm(one["play"])) > 1e-2


@pytest.mark.parametrize("layout", ["single", *PLAYING])
def test_the_samplers_logprobs_are_the_trainers(single, double, layout):
    """Temperature 1.7 with legal sets, top-k, top-p and all together."""
    seen = (double | {"single": single})[layout]["play"]
    assert seen["compared"] > 200
    assert seen["largest_difference"] < 1e-5
    values = [value for row in seen["logprobs"] for value in row]
    assert np.std(values) > 0.3  # a uniform sampler would agree with anything
    assert len(seen["lengths"]) > 1  # stopped and cut rows


@pytest.mark.parametrize("layout", PLAYING)
def test_every_rank_and_layout_draws_the_same_tokens(single, double, layout):
    seen = double[layout]["play"]
    assert seen["ranks_agree"]
    assert seen["tokens"] == single["play"]["tokens"]
    assert largest_difference(seen["logprobs"], single["play"]["logprobs"]) < 1e-5


@pytest.mark.parametrize("layout", ["single", *PLAYING])
def test_turns_through_a_window_are_scored_as_they_were_sampled(single, double, layout):
    """Every turn from just the tokens that its window held; the same turns at every layout."""
    seen = (double | {"single": single})[layout]["converse"]
    assert seen["largest_difference"] < 1e-5
    assert seen["compared"] == seen["chosen"] > 200
    assert seen["slid"] > 10
    assert seen["spread"] > 0.3  # a uniform sampler would agree with anything
    assert seen["ranks_agree"]
    assert seen["tokens"] == single["converse"]["tokens"]


def test_noise_is_a_rows_own(single):
    """The requests are asked twice with other keys: other tokens."""
    tokens = single["play"]["tokens"]
    half = len(tokens) // 2
    assert sum(a != b for a, b in zip(tokens[:half], tokens[half:])) > half // 2


@pytest.mark.parametrize("how", ["greedy", "sampled"])
@pytest.mark.parametrize("layout", ["single", "tensor"])
def test_cached_decoding_is_uncached_decoding(single, double, layout, how):
    decoded = (double | {"single": single})[layout]["decode"]
    assert decoded[how]["cached"] == decoded[how]["uncached"]
    assert largest_difference(decoded[how]["cached_logprobs"], decoded[how]["uncached_logprobs"]) < 1e-5
    assert min(decoded["first_token_tells"]) > 1e-2  # a cache that forgot it would differ
    assert len({token for row in decoded[how]["cached"] for token in row}) > 5
