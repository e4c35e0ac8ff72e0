"""What every registered reward owes."""

import math

import numpy as np
import pytest

import rlpt.rewards  # noqa: F401  (registers)
from rlpt import registry
from rlpt.template import ANSWER, END
from rlpt.types import Episode, Problem, Trajectory

PROBLEM = Problem("reverse", 1, 1, "reverse 12", "21")


def episode(answer="21", outcome=1.0, truncated=False):
    text = ANSWER + answer + ("" if truncated else END)
    empty = np.zeros(0)
    trajectory = Trajectory("solver", 1, empty, empty.astype(bool), empty, truncated=truncated)
    trajectory.well_formed = float(bool(answer) and not truncated)
    return Episode(PROBLEM, [trajectory], {"solver": outcome}, text)


@pytest.mark.parametrize("name", registry.names("reward"))
def test_bounds_and_order(name):
    reward = registry.create("reward", {"name": name})

    def of(played):
        return reward(PROBLEM, played.trajectories[0], played)

    right, wrong, cut = of(episode()), of(episode("12", 0.0)), of(episode("2", 0.0, truncated=True))
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in (right, wrong, cut))
    assert right >= wrong >= cut
    assert right > cut
