"""Plans: pure, exact learning rates at the ends, start steps and the gate on signal."""

import math

import pytest

from rlpt.config import GateConfig, parse_config
from rlpt.training.schedule import Schedule, gated_share, update_signal

OBJECTIVES = {
    "text": {"algorithm": {"name": "next_token"}, "source": {"name": "corpus"}, "microbatches": 4},
    "play": {
        "algorithm": {"name": "grpo"},
        "source": {"name": "episodes"},
        "microbatches": 2,
        "coefficient": 0.5,
        "start_step": 3,
        "gate": {"full": 0.4, "floor": 0.25},
    },
}


def schedule(steps=101, warmup_steps=0, **rest):
    values = {"steps": steps, "warmup_steps": warmup_steps, **rest}
    optimizer = {"lr": 0.01, "min_lr_ratio": 0.1, "weight_decay": 0.05}
    return Schedule(
        parse_config({"tokenizer": "t", "objectives": OBJECTIVES, "optimizer": optimizer, "schedule": values})
    )


def rates(**options):
    made = schedule(**options)
    return [made.plan(step, {}).lr for step in range(made.config.schedule.steps)]


def test_warm_up_ends_at_the_peak_and_starts_above_zero():
    values = rates(warmup_steps=10)
    assert values[:10] == pytest.approx([0.001 * k for k in range(1, 11)])
    assert values[9] == 0.01 == max(values)


def test_cosine_falls_from_the_peak_through_the_middle_to_the_floor():
    values = rates(decay="cosine")
    assert values[0] == 0.01
    assert values[50] == pytest.approx(0.0055)
    assert values[25] == pytest.approx(0.01 * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2))
    assert values[100] == pytest.approx(0.001)
    assert values == sorted(set(values), reverse=True)


def test_wsd_is_flat_and_then_a_line_to_the_floor():
    values = rates(steps=100, warmup_steps=5, decay="wsd", wsd_decay_fraction=0.2)
    assert set(values[4:80]) == {0.01}
    assert values[80] < 0.01
    assert values[89] == pytest.approx(0.0055)
    assert values[99] == pytest.approx(0.001)


def test_constant_stays_at_the_peak():
    assert set(rates(warmup_steps=4, decay="constant")[3:]) == {0.01}


@pytest.mark.parametrize("decay", ["cosine", "wsd", "constant"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 1), (2, 2), (3, 10), (2, 0)])
def test_short_runs_have_rates_between_zero_and_the_peak(decay, steps, warmup):
    assert all(0 < rate <= 0.01 for rate in rates(steps=steps, warmup_steps=warmup, decay=decay))


def test_a_plan_depends_on_its_arguments_alone():
    made, signal = schedule(), {"play": 0.3}
    first = [made.plan(step, signal) for step in range(20)]
    again = [schedule().plan(step, dict(signal)) for step in reversed(range(20))]
    assert first == again[::-1]
    assert signal == {"play": 0.3}


def test_an_objective_has_no_microbatches_before_its_start_step():
    plans = [schedule().plan(step, {}) for step in (0, 2, 3, 100)]
    assert [plan.microbatches for plan in plans] == [{"text": 4, "play": 0}] * 2 + [{"text": 4, "play": 2}] * 2
    assert plans[0].coefficients == {"text": 1.0, "play": 0.5}
    assert plans[0].weight_decay == 0.05


@pytest.mark.parametrize(("signal", "share"), [(0.0, 0.25), (0.1, 0.25), (0.2, 0.5), (0.4, 1.0), (1.0, 1.0)])
def test_the_gate_scales_the_share_with_the_signal(signal, share):
    assert schedule().plan(5, {"play": signal, "text": 0.0}).shares == {"text": 1.0, "play": share}


def test_without_a_signal_the_share_is_whole():
    assert schedule().plan(5, {}).shares == {"text": 1.0, "play": 1.0}


def test_steps_outside_the_run_and_signals_that_are_no_fraction_are_refused():
    with pytest.raises(AssertionError, match="step 101 of 101"):
        schedule().plan(101, {})
    with pytest.raises(AssertionError, match="not a fraction"):
        gated_share(GateConfig(), math.nan)


def test_running_mean_starts_at_the_first_observation():
    assert update_signal(None, 0.8, 0.9) == 0.8
    assert update_signal(0.8, 0.3, 0.9) == pytest.approx(0.75)
