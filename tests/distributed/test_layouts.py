"""The same numbers in every layout: losses, gradients, log-probs and sampled tokens at 1 and 2 ranks.

Tolerances: 1e-5 is some 20 times the largest difference that was measured in float32 (8e-7), 1e-12 some 4,000 times
the largest in float64. The smallest figure that is compared is 1e-3, so nothing passes by being zero.
"""

import math

import numpy as np
import pytest
from adapted import AFTER, BEFORE, RESHARDED, algorithm_specs
from helpers.launches import layout_results
from updates import ALGORITHMS

from rlpt.bench.update_forms import FORMS, SKIPPED
from rlpt.models.attention import DENSE

TWO_RANKS = ["tensor", "sequence", "pipeline", "data", "data_replicated_optimizer"]
PLAYING = ["tensor", "sequence", "data", "data_replicated_optimizer"]


RESHARDINGS = [f"{source} to {target}" for source, targets in RESHARDED.items() for target in targets]


@pytest.fixture(scope="session")
def single():
    return layout_results(1)["single"]


@pytest.fixture(scope="session")
def whole():
    """What a model with adapters and heads does on one rank."""
    return layout_results(1)


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


@pytest.mark.parametrize("layout", ["single", *PLAYING])
def test_steps_that_begin_with_text_are_the_same(single, double, layout):
    """0 to 3 halves of the passes of text ran before the episodes were there."""
    seen = (double | {"single": single})[layout]["begun"]
    assert largest_difference(seen, single["steps"]) < 1e-5


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
    assert (np.abs(figures) > 1e-3).all()
    assert (np.abs(np.diff(figures, axis=0)).max(axis=0) > 1e-3).all()
    cosines = [row[5] for row in single["steps"][4::5]]
    assert all(1e-3 < abs(cosine) < 1 for cosine in cosines)


@pytest.mark.parametrize("how", ["mixed", "reversed", "split", "filled"])
def test_the_gradient_is_the_weighted_sum_of_its_parts(single, double, how):
    """In float64; `split`: microbatches of one row, `reversed`: the other order of rows and objectives,
    `filled`: microbatches that run together."""
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


@pytest.mark.parametrize("layout", ["single", *PLAYING])
def test_any_number_of_slots_draws_what_a_static_batch_draws(single, double, layout):
    """One row after another, three slots that are filled again and again, and all rows at once."""
    seen = (double | {"single": single})[layout]["play"]
    for found in seen["slots"].values():
        assert found["tokens"] == seen["tokens"]
        assert largest_difference(found["logprobs"], seen["logprobs"]) < 1e-5


@pytest.mark.parametrize("layout", PLAYING)
def test_every_rank_and_layout_draws_the_same_tokens(single, double, layout):
    seen = double[layout]["play"]
    assert seen["ranks_agree"]
    assert seen["tokens"] == single["play"]["tokens"]
    assert largest_difference(seen["logprobs"], single["play"]["logprobs"]) < 1e-5


def test_tokens_drawn_from_shards_are_those_of_whole_rows(single, double):
    """Greedy and at two temperatures, any id and legal sets in both shards, in one, of one id: at two ranks with and
    without gathering, and at one. Whole rows add certainty up in float32."""
    one, two = single["drawn"]["shards"], double["tensor"]["drawn"]
    assert one["calls"] == two["gathered"]["calls"] == 0
    assert two["shards"]["calls"] > 20
    assert two["shards"]["ranks_agree"]
    for other, logprob, certainty in ((two["gathered"], 1e-6, 4e-6), (one, 1e-5, 1e-5)):
        assert two["shards"]["tokens"] == other["tokens"]
        assert largest_difference(two["shards"]["logprobs"], other["logprobs"]) < logprob
        assert largest_difference(two["shards"]["certainty"], other["certainty"]) < certainty
    for figures in ("logprobs", "certainty"):
        assert np.std([value for row in one[figures] for value in row]) > 0.3
    assert len({token for row in one["tokens"] for token in row}) > 40


@pytest.mark.parametrize("layout", ["single", *PLAYING])
def test_the_sampler_has_the_adapters_too(single, double, layout):
    seen, plain = (double | {"single": single})[layout]["adapted_play"], single["play"]
    assert seen["compared"] > 200
    assert seen["largest_difference"] < 2e-5  # merged weights round otherwise than the two paths of the trainer
    assert seen["ranks_agree"]
    assert seen["tokens"] == single["adapted_play"]["tokens"] != plain["tokens"]


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


@pytest.mark.parametrize("layout", ["single", *PLAYING])
def test_games_are_played_and_searched_alike_at_every_layout(single, double, layout):
    """Together as one by one; the sampler's log-probs are the trainer's, and so are the chooser's."""
    seen = (double | {"single": single})[layout]["duel"]
    assert seen["ranks_agree"]
    assert seen["games"] == seen["games_alone"] == single["duel"]["games"]
    assert len(set(seen["games"])) > 5
    assert 0 < seen["searched"] < 10
    for ours, alone in zip(seen["logprobs"], seen["logprobs_alone"], strict=True):
        assert ours == pytest.approx(alone, abs=1e-5)
    assert seen["largest_difference"] < 1e-5
    largest, spread = seen["chooser"]
    assert largest < 1e-5
    assert spread > 0.1


def test_noise_is_a_rows_own(single):
    """The requests are asked twice with other keys: other tokens."""
    tokens = single["play"]["tokens"]
    half = len(tokens) // 2
    assert sum(a != b for a, b in zip(tokens[:half], tokens[half:])) > half // 2


@pytest.mark.parametrize("how", ["greedy", "sampled", "continued"])
@pytest.mark.parametrize("layout", ["single", "tensor"])
def test_cached_decoding_is_uncached_decoding(single, double, layout, how):
    decoded = (double | {"single": single})[layout]["decode"]
    assert decoded[how]["cached"] == decoded[how]["uncached"]
    assert largest_difference(decoded[how]["cached_logprobs"], decoded[how]["uncached_logprobs"]) < 1e-5
    assert min(decoded["first_token_tells"]) > 1e-2  # a cache that forgot it would differ
    assert len({token for row in decoded[how]["cached"] for token in row}) > 5


@pytest.mark.parametrize("layout", TWO_RANKS)
def test_twenty_steps_with_adapters_and_a_value_head(single, whole, double, layout):
    """[text, play and critic loss, gradient norm] a step; every fifth also three norms and three cosines."""
    one = whole["adapted_steps"]["single"]
    assert [len(row) for row in one] == [4, 4, 4, 4, 10] * 4
    assert largest_difference(double["adapted_steps"][layout], one) < 1e-5
    plain = [row[:2] for row in single["steps"]]
    assert largest_difference([row[:2] for row in one], plain) > 1e-3  # it is another model
    assert min(row[2] for row in one) > 0.1


@pytest.mark.parametrize("change", RESHARDINGS)
def test_a_checkpoint_goes_on_at_another_layout(whole, double, change):
    """Weights, adapters, heads and both moments, the learning rate of adapters among them."""
    wanted = whole["adapted_steps"]["single"][BEFORE : BEFORE + AFTER]
    assert largest_difference(double["resharded"][change], wanted) < 1e-5


@pytest.mark.parametrize("label", algorithm_specs())
@pytest.mark.parametrize("layout", ["tensor", "sequence", "pipeline", "data"])
def test_every_algorithm_has_one_gradient(whole, double, layout, label):
    """In float64, of a model with adapters that are not zero and with heads: each parameter's norm and its product with
    a random tensor. Metrics may add up float32 in another order."""
    one, two = whole["algorithms"]["single"][label], double["algorithms"][layout][label]
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-5, abs=1e-5)
    assert two["gradient"].keys() == one["gradient"].keys()
    norm = math.hypot(*(value for value, _ in one["gradient"].values()))
    assert largest_difference(two["gradient"].values(), one["gradient"].values()) < 1e-12 * norm


@pytest.mark.parametrize("label", algorithm_specs())
def test_the_compared_gradients_are_there(whole, label):
    """Negative control: no parameter has a gradient of zero but the heads that the objective does not train."""
    norms = {name: value for name, (value, _) in whole["algorithms"]["single"][label]["gradient"].items()}
    assert all(value > 1e-3 for name, value in norms.items() if not name.startswith("heads."))
    heads = [name for name, value in norms.items() if name.startswith("heads.") and value]
    assert len(heads) in (0, 2)
    assert any(name.endswith("fc1.adapter_b") for name in norms)


@pytest.mark.parametrize("label", ALGORITHMS)
@pytest.mark.parametrize("layout", ["single", "tensor", "sequence", "pipeline", "data"])
def test_a_packed_update_is_the_padded_one(single, double, layout, label):
    """In float64: loss and gradient of each form at each layout are those of padded rows on one rank. A trajectory's
    share of a mean is float32, so that what skipped ones add to the divisor is right to 1e-8."""
    padded, *forms = FORMS
    wanted = single["updates"][label][padded]
    norm = math.hypot(*(value for value, _ in wanted["gradient"].values()))
    assert abs(wanted["loss"]) > 1e-3
    assert norm > 1e-2
    for form in (padded, *forms):
        found = (double | {"single": single})[layout]["updates"][label][form]
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-7), form
        off = largest_difference(found["gradient"].values(), wanted["gradient"].values())
        assert off < (1e-7 if form == SKIPPED else 1e-12) * norm, form


def test_each_form_computes_less_than_the_one_before(single):
    """And the rows are long enough that their attention goes by tiles."""
    found = [single["updates"]["over tokens"][form] for form in FORMS]
    positions = [one["positions"] for one in found]
    assert positions[0] > 1.5 * positions[1] > 1.5 * 1.5 * positions[2] > 1.5 * 1.5 * 1.5 * positions[3]
    assert min(found[1]["lengths"]) > DENSE > max(found[3]["lengths"])
