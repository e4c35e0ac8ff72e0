"""Records and errors of row 0."""

import dataclasses

import numpy as np
import pytest

from rlpt import errors
from rlpt.types import Completion, Episode, Problem, SamplingParams, Trajectory


@pytest.mark.parametrize("record", [Problem("sort", 1, 0, "sort 1", "1"), SamplingParams()])
def test_records_are_frozen(record):
    name = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


def test_trajectories_and_episodes_share_no_defaults():
    arrays = (np.zeros(2, np.int64), np.zeros(2, bool), np.zeros(2, np.float32))
    first, second = (Trajectory("solver", 1, *arrays) for _ in range(2))
    first.rewards["correct"] = 1.0
    assert second.rewards == {}
    problem = Problem("sort", 1, 0, "sort 1", "1")
    one, two = Episode(problem, [first]), Episode(problem, [second])
    one.outcome["solver"] = 1.0
    assert two.outcome == {}
    assert problem == Problem("sort", 1, 0, "sort 1", "1")
    assert Completion(*arrays[::2], "stop").kept_ids is None


def test_errors_carry_distinct_exit_codes():
    kinds = [errors.UserError, errors.ConfigError, errors.DataError, errors.CheckpointError, errors.TrainingError]
    assert [kind.exit_code for kind in kinds] == [1, 2, 3, 4, 78]
    assert all(issubclass(kind, errors.UserError) for kind in kinds)
    assert issubclass(errors.ConfigError, ValueError)
