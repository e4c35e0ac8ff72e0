"""Algorithm, source and reference snapshot must go together before anything is built."""

from pathlib import Path

import pytest
from helpers.runs import configuration

from rlpt.config import parse_config
from rlpt.config_files import apply_overrides
from rlpt.errors import ConfigError
from rlpt.training.runtime import create_algorithms, required_heads
from rlpt.training.sources import check_pair


def configured(*overrides):
    return parse_config(apply_overrides(configuration(Path("tiny")), overrides))


def checked(config, name):
    check_pair(config, name, create_algorithms(config)[name])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["objectives.play.reference=''"], r"objectives\.play\.reference: .* needs a snapshot to refer to"),
        (["objectives.play.reference=past"], r"objectives\.play\.reference: 'past' is a pool of copies"),
        (
            ["snapshots.lagged.start_step=3", "objectives.play.start_step=2"],
            "'lagged' is first taken before step 3, and the objective starts at step 2",
        ),
        (["objectives.play.source={name: corpus}"], "needs rewards, which source 'corpus' does not give"),
        (["objectives.play.algorithm={name: next_token}"], "does not take rewards, which source 'episodes' gives"),
    ],
)
def test_algorithm_source_and_reference_must_go_together(overrides, message):
    with pytest.raises(ConfigError, match=message):
        checked(configured(*overrides), "play")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["snapshots.lagged.start_step=3", "objectives.play.start_step=3"],
        [
            "snapshots.lagged.start_step=3",
            "objectives.play.start_step=2",
            "objectives.play.turns={period: 4, active: 1, offset: 1}",
        ],
        ["objectives.play.reference=''", "objectives.play.algorithm.kl_coefficient=0"],
    ],
)
def test_what_goes_together(overrides):
    config = configured(*overrides)
    for name in config.objectives:
        checked(config, name)


def test_heads_are_those_that_algorithms_train():
    assert required_heads(configured()) == ("value",)
    assert required_heads(configured("objectives.values=null", "objectives.games=null")) == ()
