"""Plans: pure, exact learning rates at the ends, who learns when and with what weight, the gate on signal."""

import math

import pytest

from rlpt.config import parse_config
from rlpt.config_files import apply_overrides
from rlpt.config_objectives import GateConfig
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


BASE = {
    "tokenizer": "t",
    "objectives": {
        "text": {"algorithm": {"name": "next_token"}, "source": {"name": "corpus"}},
        "play": {"algorithm": {"name": "grpo"}, "source": {"name": "episodes"}, "microbatches": 2},
    },
    "schedule": {"steps": 12, "warmup_steps": 0, "decay": "constant"},
}
SWITCH = ["objectives.text.stop_step=5", "objectives.play.start_step=5"]
FIRST, THEN = "text " * 5, "play " * 7
RECIPES = {  # name -> (overrides of one base, who learns at each of the twelve steps)
    "reinforcement from scratch": (["objectives.text=null"], "play " * 12),
    "supervised, then reinforcement with a KL to where it began": (
        [
            *SWITCH,
            "snapshots.start={start_step: 5}",
            "objectives.play.reference=start",
            "objectives.play.algorithm.kl_coefficient=0.1",
        ],
        FIRST + THEN,
    ),
    "two stages": (SWITCH, FIRST + THEN),
    "alternating": (
        ["objectives.text.turns={period: 3, active: 2}", "objectives.play.turns={period: 3, active: 1, offset: 2}"],
        "text text play " * 4,
    ),
    "interleaved": ([], "text+play " * 12),
    "interleaved, reinforcement ramped in": (
        ["objectives.play.coefficient={start: 0, end: 1, steps: 10}", "objectives.play.start_step=1"],
        "text " + "text+play " * 11,
    ),
}


def overridden(*overrides):
    return Schedule(parse_config(apply_overrides(BASE, overrides)))


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_of_the_literature_are_a_few_keys_apart(name):
    overrides, turns = RECIPES[name]
    made = overridden(*overrides)
    plans = [made.plan(step, {}) for step in range(12)]
    assert ["+".join(key for key, n in plan.microbatches.items() if n) for plan in plans] == turns.split()
    for key, objective in made.config.objectives.items():
        active = [plan.microbatches[key] for plan in plans]
        assert set(active) <= {0, objective.microbatches}
        assert objective.active_steps(12) == sum(map(bool, active))
        assert objective.first_step == next(step for step, count in enumerate(active) if count)


def test_the_reference_of_the_second_stage_is_the_weights_at_the_switch():
    made = overridden(*RECIPES["supervised, then reinforcement with a KL to where it began"][0])
    taken = made.config.snapshots[made.config.objectives["play"].reference].start_step
    assert taken == made.config.objectives["play"].start_step == made.config.objectives["text"].stop_step


def test_ramped_coefficients_are_the_lines_values():
    made = overridden("objectives.play.coefficient={start: 0, end: 2, steps: 4, begin: 3}")
    values = [made.plan(step, {}).coefficients["play"] for step in range(12)]
    assert values == [0, 0, 0, 0, 0.5, 1.0, 1.5, *[2] * 5]


def test_turns_are_counted_from_the_objectives_start():
    made = overridden("objectives.play.start_step=4", "objectives.play.turns={period: 3, active: 1, offset: 1}")
    assert [step for step in range(12) if made.plan(step, {}).microbatches["play"]] == [5, 8, 11]
    assert made.config.objectives["play"].active_steps(12) == 3
    assert made.config.objectives["play"].active_steps(8) == 1


def test_the_balance_of_a_bilevel_run_shares_out_the_coefficients():
    """lambda of the lower objective, 1 - lambda of the upper, beside their own; a third is not touched."""
    other = "objectives.more={algorithm: {name: next_token}, source: {name: corpus}, coefficient: 3}"
    bilevel = "bilevel={upper: text, lower: play, meta: false, balance: {start: 0, end: 1, steps: 10}}"
    made = overridden(bilevel, other, "objectives.text.coefficient=2", "objectives.play.coefficient=0.5")
    coefficients = [made.plan(step, {}).coefficients for step in range(12)]
    for step, found in enumerate(coefficients):
        balance = min(step / 10, 1)
        assert found == pytest.approx({"text": 2 * (1 - balance), "play": 0.5 * balance, "more": 3})
    assert coefficients[11]["text"] == 0
    fixed = overridden(bilevel.replace("{start: 0, end: 1, steps: 10}", "0.25"))
    assert fixed.plan(7, {}).coefficients == {"text": 0.75, "play": 0.25}
