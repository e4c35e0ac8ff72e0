"""One step over any mix: what losses and metrics are divided by, their order, bounds that stop before the update."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers.tiny_model import LENGTH, build, one_rank, played_batch, random_batch, tiny_config

from rlpt.algorithms.base import Algorithm, LossTerms, masked_max, masked_sum
from rlpt.errors import ConfigError
from rlpt.training.optimizer import Optimizer, wrap_data_parallel
from rlpt.training.runtime import create_algorithms
from rlpt.training.schedule import Schedule
from rlpt.training.step import TrainStep


@dataclass(frozen=True)
class CountsRows(Algorithm):
    """Its divisor is three for a microbatch; its figures are known numbers."""

    uses_rewards: ClassVar[bool] = False

    def __call__(self, scores, batch):
        weights = torch.arange(batch.loss_mask.numel()).view_as(scores.logprobs).float()
        metrics = {"place": masked_sum(weights, batch.loss_mask)}
        return LossTerms(
            -masked_sum(scores.logprobs, batch.loss_mask), metrics, {"last": masked_max(weights, batch.loss_mask)}
        )

    def advantages(self, outcomes, baselines):
        return np.zeros(len(outcomes.rewards))

    def count(self, batch):
        return 3.0

    def describe(self, means):
        return {"place_squared": means["place"] ** 2}


ALGORITHMS = {"text": {"name": "next_token"}, "play": {"name": "grpo"}, "rows": {"name": "next_token"}}


@pytest.fixture(autouse=True)
def _alone():
    with one_rank():
        yield


@pytest.fixture
def config():
    return tiny_config(algorithms=ALGORITHMS, init_std=0.1)


def started(config, **options):
    _, policy = build(config)
    model = wrap_data_parallel(config, policy.gpt, policy.device)
    objectives = create_algorithms(config) | {"rows": CountsRows()}
    return TrainStep(policy, model, Optimizer(config, model, policy.device), objectives, **options)


def batches():
    return {
        "text": [random_batch("text", i, density) for i, density in enumerate((0.9, 0.2))],
        "play": [played_batch("play", i, density) for i, density in enumerate((0.7, 0.0))],
        "rows": [random_batch("rows", i, density) for i, density in enumerate((0.5, 0.3))],
    }


def weights(step):
    return [one.detach().clone() for one in step.policy.gpt.parameters()]


def test_losses_are_totals_over_the_algorithms_own_count_and_metrics_means_over_tokens(config):
    step, given = started(config), batches()
    terms = {
        name: [step.objectives[name](step.policy.score(batch), batch) for batch in part] for name, part in given.items()
    }
    totals = {name: sum(float(one.total) for one in part) for name, part in terms.items()}
    tokens = {name: sum(int(batch.loss_mask.sum()) for batch in part) for name, part in given.items()}
    shares = sum(float(batch.sequence_share[batch.loss_mask].sum()) for batch in given["play"])
    counts = step.global_counts(given)
    assert counts.divisors == pytest.approx({"text": tokens["text"], "play": shares, "rows": 6.0})
    assert counts.tokens == tokens
    assert counts.positions == dict.fromkeys(given, 2 * 3 * LENGTH)
    result = step(given, Schedule(config).plan(0, {}))
    assert result.losses == pytest.approx({name: totals[name] / counts.divisors[name] for name in given}, rel=1e-5)
    assert list(result.losses) == list(given)  # in the configuration's order
    assert (result.tokens, result.positions) == (counts.tokens, counts.positions)
    place = sum(float(one.metrics["place"]) for one in terms["rows"]) / tokens["rows"]
    assert result.metrics["rows/place"] == pytest.approx(place)
    assert result.metrics["rows/place_squared"] == pytest.approx(place**2)
    assert result.metrics["rows/last"] == max(int(batch.loss_mask.flatten().nonzero().max()) for batch in given["rows"])
    ratio = max(float(one.maxima["largest_ratio"]) for one in terms["play"])
    assert result.metrics["play/largest_ratio"] == pytest.approx(ratio, rel=1e-5)
    assert ratio > 1.1


def test_an_objective_whose_rows_are_all_masked_has_loss_zero(config):
    step, given = started(config), batches()
    given["text"] = [replace(batch, loss_mask=torch.zeros_like(batch.loss_mask)) for batch in given["text"]]
    result = step(given, Schedule(config).plan(0, {}))
    assert (result.losses["text"], result.tokens["text"], result.skipped) == (0.0, 0, False)


def test_an_objective_that_takes_no_part_is_in_no_figure(config):
    step, given = started(config), batches()
    del given["play"]
    result = step(given, Schedule(config).plan(0, {}), compare_gradients=True)
    assert sorted(result.losses) == ["rows", "text"]
    assert not [key for key in result.metrics if "play" in key]
    assert "gradient_cosine/text-rows" in result.metrics


def test_a_figure_above_its_bound_stops_before_the_update(config):
    for bound, stops in ((1e-3, True), (1e6, False)):
        step = started(config, stop_above={"play": {"behavior_kl": 1e9, "largest_ratio": bound}})
        before = weights(step)
        result = step(batches(), Schedule(config).plan(0, {}))
        unchanged = all(torch.equal(one, other) for one, other in zip(before, weights(step)))
        assert unchanged == bool(result.stopped) == stops
        assert not result.skipped
    assert result.stopped == ""


def test_the_reason_names_figure_value_bound_and_key(config):
    step = started(config, stop_above={"text": {"loss": 1.0}})
    result = step(batches(), Schedule(config).plan(0, {}))
    loss = result.losses["text"]
    assert result.stopped == f"text/loss={loss:g} is above its bound 1 (objectives.text.stop_above)"


def test_what_is_not_a_number_is_above_every_bound(config):
    step, given = started(config, stop_above={"play": {"behavior_kl": 1e30}}), batches()
    first = given["play"][0]
    given["play"][0] = replace(first, behavior_logprobs=torch.full_like(first.behavior_logprobs, torch.nan))
    result = step(given, Schedule(config).plan(0, {}))
    assert result.stopped.startswith("play/behavior_kl=nan")
    assert result.skipped


def test_a_bound_of_a_figure_that_there_is_not_is_refused(config):
    step = started(config, stop_above={"play": {"behaviour_kl": 1.0}})
    with pytest.raises(ConfigError, match=r"objectives\.play\.stop_above\.behaviour_kl: .* mean 'behavior_kl'"):
        step(batches(), Schedule(config).plan(0, {}))
    given = batches()
    del given["play"]
    assert step(given, Schedule(config).plan(0, {})).stopped == ""  # it takes no part


def test_a_step_that_is_not_finite_changes_nothing(config):
    step, given = started(config), batches()
    first = given["play"][0]
    given["play"][0] = replace(first, advantages=torch.full_like(first.advantages, torch.inf))
    before = weights(step)
    result = step(given, Schedule(config).plan(0, {}))
    assert result.skipped
    assert all(torch.equal(one, other) for one, other in zip(before, weights(step)))
