"""TrainState: exact through JSON; what JSON would change is refused. Throughput: rates by hand."""

import json

import pytest

from rlpt.errors import CheckpointError
from rlpt.training.state import Best, TrainState
from rlpt.training.throughput import Throughput, duration


def test_exact_round_trip():
    state = TrainState(
        step=7,
        seconds=0.1 + 0.2,
        signal={"play": 1 / 3, "other": 5e-324},
        best=Best(float("-inf"), 3),
        sources={"text": {"consumed": 2**60, "shuffle": (1, 2.5, None, True)}},
        snapshots=["average", "past@10"],
        shadow={"updates": 3},
        accounts={"play": {"update_tokens": 7, "flops": 1e15 / 3}},
        wandb_id="abc",
        evaluations=[{"step": 0, "tasks": {"sort": {"pass@1": 0.1}}}],
    )
    again = TrainState.from_json(json.loads(json.dumps(state.to_json())))
    state.sources["text"]["shuffle"] = [1, 2.5, None, True]
    assert again == state
    assert TrainState.from_json(TrainState().to_json()) == TrainState()


def test_the_json_is_a_copy():
    state = TrainState(sources={"text": {"list": [1]}})
    kept = state.to_json()
    state.sources["text"]["list"].append(2)
    assert kept["sources"]["text"]["list"] == [1]


@pytest.mark.parametrize(
    ("value", "message"), [({3: 1}, "state.sources.text: key 3"), ({"a": [{1, 2}]}, r"state\.sources\.text\.a\.0: set")]
)
def test_what_json_would_change_is_refused(value, message):
    with pytest.raises(TypeError, match=message):
        TrainState(sources={"text": value}).to_json()


def test_another_versions_state_is_refused():
    value = TrainState().to_json() | {"novel": 1}
    del value["episodes"]
    with pytest.raises(CheckpointError, match=r"missing \['episodes'\], unknown \['novel'\]"):
        TrainState.from_json(value)


def test_throughput_over_a_window():
    now = [100.0]
    meter = Throughput(num_steps=10, seconds=50.0, window=2, clock=lambda: now[0])
    assert meter.metrics() == {}
    for step, (seconds, tokens, episodes) in enumerate([(0, 0, 0), (10, 100, 1), (12, 300, 3), (14, 500, 7)]):
        now[0] = 100.0 + seconds
        meter.update(step, tokens, episodes)
    assert meter.metrics() == {
        "tokens_per_second": 100.0,
        "episodes_per_second": 1.5,
        "seconds_per_step": 2.0,
        "eta_seconds": 14.0,
    }
    assert meter.seconds == 64.0


def test_durations():
    assert [duration(s) for s in (0, 59.6, 3600, 100_000)] == ["0:00", "1:00", "1:00:00", "1d 03:46:40"]
