"""What algorithms share that learn from what is shown: rewards are not looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rlpt.algorithms.base import Algorithm, Baselines, Outcomes


@dataclass(frozen=True)
class Supervised(Algorithm):
    """A loss on given targets, averaged over all loss tokens."""

    uses_rewards: ClassVar[bool] = False

    @property
    def needs_silent(self) -> bool:
        return True

    def advantages(self, outcomes: Outcomes, baselines: Baselines) -> np.ndarray:
        """Ones."""
        return np.ones(len(outcomes.rewards))
