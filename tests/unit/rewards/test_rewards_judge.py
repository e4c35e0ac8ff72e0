"""Judges from outside, and what happens where they fail."""

import logging

import numpy as np
import pytest
from helpers.episodes import TOKENIZER, thinking, values

from rlpt.errors import ConfigError, TrainingError
from rlpt.registry import create
from rlpt.rewards.base import RewardContext

CONTEXT = RewardContext(tokenizer=TOKENIZER)
EPISODES = [thinking("12<|answer|>21<|end|>"), thinking("<|answer|>1<|end|>"), thinking("1")]


def share_of_ones(texts):
    return [np.float32(text.count("1") / len(text)) for text in texts]


def unreachable(texts):
    raise TimeoutError("no answer from the service")


def too_few(texts):
    return [0.5]


def odd(texts):
    return [0.25, float("nan"), 1.5]


def silent(texts):
    return [0.25, None, "1"]


not_callable = 3


def judged(function, **options):
    return create("reward", {"name": "judge", "judge": f"{__name__}:{function}", **options})


def test_it_reads_whole_texts_and_is_called_once():
    expected = [
        text.count("1") / len(text) for text in (TOKENIZER.decode(e.trajectories[0].token_ids) for e in EPISODES)
    ]
    found = values(judged("share_of_ones"), EPISODES, CONTEXT)
    assert found == pytest.approx(expected)
    assert len(set(found)) == 3
    assert all(type(value) is float for value in found)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("unreachable", "unreachable failed: TimeoutError.*mend it, or set on_failure"),
        ("too_few", "1 scores for 3 texts"),
        ("odd", "scored nan"),
        ("silent", "scored None"),
    ],
)
def test_a_failing_judge_stops_the_run(function, message):
    with pytest.raises(TrainingError, match=message):
        values(judged(function), EPISODES, CONTEXT)


@pytest.mark.parametrize(
    ("function", "expected", "failures"),
    [
        ("unreachable", [0.5, 0.5, 0.5], 3),
        ("too_few", [0.5, 0.5, 0.5], 3),
        ("odd", [0.25, 0.5, 0.5], 2),
        ("silent", [0.25, 0.5, 0.5], 2),
        ("share_of_ones", None, 0),
    ],
)
def test_with_on_failure_it_is_logged_and_counted(function, expected, failures, caplog):
    reward = judged(function, on_failure=0.5)
    with caplog.at_level(logging.WARNING):
        found = values(reward, EPISODES, CONTEXT)
        values(reward, EPISODES, CONTEXT)
    assert expected is None or found == expected
    assert reward.failures == [2 * failures]
    assert (f"({2 * failures} so far)" in caplog.text) == (failures > 0)


def test_it_is_imported_when_it_is_needed():
    for path, message in (
        ("no_such_module:judge", "judge=no_such_module:judge: can't be imported"),
        (f"{__name__}:nobody", "can't be imported"),
        (f"{__name__}:not_callable", "is not callable"),
    ):
        reward = create("reward", {"name": "judge", "judge": path, "on_failure": 0.5})
        with pytest.raises(ConfigError, match=message):
            values(reward, EPISODES, CONTEXT)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": "module"}, "must be 'module:callable'"),
        ({"judge": ":callable"}, "must be 'module:callable'"),
        ({"judge": "a:b", "on_failure": 2}, "on_failure=2.0: must be between 0 and 1"),
        ({"judge": "a:b", "failures": [1]}, r"part\.failures: unknown key"),
        ({}, r"part\.judge: Field required"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        create("reward", {"name": "judge", **options}, "part")
