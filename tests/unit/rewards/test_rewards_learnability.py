"""A proposer's reward, by hand."""

import pytest
from helpers.episodes import PROBLEM, trajectory_of

from rlpt.errors import ConfigError
from rlpt.rewards.learnability import Learnability
from rlpt.types import Episode


def of(reward, rate, role="proposer", **options):
    trajectory = trajectory_of("<|prompt|>", "x<|end|>", role=role, **options)
    return reward(PROBLEM, trajectory, Episode(PROBLEM, [trajectory], {} if rate is None else {"solve_rate": rate}))


CODE = Learnability(useless=-0.5, malformed=-1.0)


def test_the_paper_and_its_code():
    rates = (0.0, 0.125, 0.5, 0.875, 1.0)
    assert [of(Learnability(), rate) for rate in rates] == [0, 0.875, 0.5, 0.125, 0]
    assert [of(CODE, rate) for rate in rates] == [-0.5, 0.875, 0.5, 0.125, -0.5]


def test_the_most_may_be_earned_elsewhere():
    peaked = Learnability(peak=0.5, useless=-0.5)
    assert [of(peaked, rate) for rate in (0.0, 0.25, 0.5, 0.75, 1.0)] == [-0.5, 0.5, 1, 0.5, -0.5]
    assert of(Learnability(peak=0.25), 0.25) == 1
    assert of(Learnability(peak=0.25), 0.625) == 0.5
    with pytest.raises(ConfigError, match=r"peak=1\.0: must be a solve rate, at least 0 and below 1"):
        Learnability(peak=1.0)


def test_a_malformed_proposal_needs_no_rate():
    for options in ({"well_formed": 0.0}, {"truncated": True}):
        assert of(CODE, None, **options) == of(CODE, 0.5, **options) == -1
    with pytest.raises(KeyError, match="solve_rate"):
        of(CODE, None)


def test_other_roles_get_nothing():
    assert of(CODE, 0.0, role="solver") == of(CODE, None, role="solver") == 0
    assert of(Learnability(role="teacher"), 0.25, role="teacher") == 0.75
