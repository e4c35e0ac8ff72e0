"""Text that is trained on beside a play: the same run, whatever part of it ran there."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.runs import SMALL, metric_rows, steps, trainer, weights, write_run
from helpers.tiny_model import build, one_rank, tiny_config, wake
from helpers.tiny_training import global_batches

from rlpt.models.snapshots import Snapshots
from rlpt.training.optimizer import Optimizer, wrap_data_parallel
from rlpt.training.runtime import create_algorithms
from rlpt.training.schedule import Schedule
from rlpt.training.step import TrainStep

NEVER = 1e-9  # text begins with the play, and no call has so few rows left
GAMES = [*(one for one in SMALL if not one.startswith("objectives.games")), "objectives.play=null"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("tiny"))


def run(tiny, share, overrides=SMALL):
    name = f"{hash(tuple(overrides))}-{share}"
    with trainer(tiny, name, *overrides, "schedule.steps=6", f"batch.overlap={share}") as made:
        made.fit()
        found = weights(made)
    rows = steps(metric_rows(tiny.parent / name))
    return found, [{key: value for key, value in row.items() if key != "overlap"} for row in rows.values()], rows


@pytest.mark.parametrize("overrides", [SMALL, GAMES], ids=["tasks", "games against past selves"])
def test_a_run_is_the_same_bit_for_bit_whatever_ran_beside_the_play(tiny, overrides):
    after, plain, before = run(tiny, NEVER, overrides)
    beside, others, rows = run(tiny, 1.0, overrides)
    assert {row["overlap"] for step, row in before.items() if "overlap" in row} == {0.0}
    assert max(row["overlap"] for row in rows.values() if "overlap" in row) == 1.0
    assert plain == others
    assert all(torch.equal(after[name], beside[name]) for name in after)


def test_it_is_the_run_without_overlap_up_to_rounding(tiny):
    _, rows, _ = run(tiny, 0.5)
    _, plain, bare = run(tiny, 0)
    assert not any("overlap" in row for row in bare.values())
    for row, other in zip(rows, plain, strict=True):
        assert row.keys() == other.keys()
        assert row["text/fingerprint"] == other["text/fingerprint"]
        assert row["text/loss"] == pytest.approx(other["text/loss"], rel=1e-4)
        assert row["play/loss"] == pytest.approx(other["play/loss"], abs=1e-4)


def test_steps_that_compare_gradients_begin_with_nothing(tiny):
    _, _, rows = run(tiny, 1.0, [*SMALL, "tracking.gradient_interval=2"])
    assert [step for step, row in rows.items() if "overlap" in row] == [1, 3, 5]
    assert "gradient_cosine/text-play" in rows[4]


def test_nothing_is_trained_while_the_weights_are_a_past_selfs(tiny):
    with trainer(tiny, "past", *GAMES, "schedule.steps=2") as made:
        made.snapshots.take("past@0")
        seen = []
        past = made.streams["games"].source.context.past()["past@0"]
        with made.runtime.generator.beside(lambda: seen.append(1), 1.0):
            made.runtime.generator([[2, 3]], [_four_tokens()], [1])
            alone = len(seen)
            past([[2, 3]], [_four_tokens()], [1])
    assert alone == 4
    assert len(seen) == alone


def _four_tokens():
    from rlpt.types import SamplingParams

    return SamplingParams(max_new_tokens=4)


@pytest.fixture
def made():
    with one_rank():
        config = tiny_config()
        _, policy = build(config)
        wake(policy, config)
        model = wrap_data_parallel(config, policy.gpt, policy.device)
        optimizer = Optimizer(config, model, policy.device)
        yield config, policy, TrainStep(policy, model, optimizer, create_algorithms(config))


def test_a_step_that_was_not_finite_once_is_run_again_from_its_beginning(made, monkeypatch):
    config, policy, step = made
    batches, plan = global_batches(0, config), Schedule(config).plan(0, {})
    start = Snapshots(policy.gpt)
    start.take("start")
    wanted = step(batches, replace(plan, lr=0.0, weight_decay=0.0))
    with torch.no_grad():
        for name, one in policy.gpt.named_parameters():
            one.copy_(start.tensors("start")[name])
    found, reduce = iter([False, True]), step._reduce

    def once(sums, counts, finite):
        return reduce(sums, counts, finite and next(found))

    monkeypatch.setattr(step, "_reduce", once)
    begun = step.begin({"text": batches["text"]}, plan)
    begun.advance()
    result = step(batches, plan, begun=begun)
    assert result.transient
    assert not result.skipped
    assert result.gradient_norm == pytest.approx(wanted.gradient_norm, rel=1e-5)
    assert result.losses == pytest.approx(wanted.losses, rel=1e-5)


def test_a_step_that_begins_with_what_is_not_finite_is_skipped(made):
    config, policy, step = made
    batches, plan = global_batches(0, config), Schedule(config).plan(0, {})
    plan = replace(plan, coefficients=plan.coefficients | {"text": math.nan})
    before = [one.detach().clone() for one in policy.gpt.parameters()]
    result = step(batches, plan, begun=step.begin({"text": batches["text"]}, plan))
    assert result.skipped
    assert all(torch.equal(one, other) for one, other in zip(before, policy.gpt.parameters(), strict=True))
