"""Potential-based shaping by a scalar head: rewards on the way that leave the best policy as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlpt.errors import ConfigError
from rlpt.registry import register
from rlpt.rewards.base import RewardContext
from rlpt.rewards.trace import on_grid, steps, turns
from rlpt.types import Episode, Trajectory


@register("reward", "shaping")
@dataclass(frozen=True)
class Shaping:
    """F = gamma Phi(s') - Phi(s) for every action (Ng, Harada & Russell 1999, "Policy invariance under reward
    transformations"), with Phi = 0 at the end, so that all of it together adds -Phi(s0) to the discounted return.

    Phi is what the scalar head says of the state before the first action and after each step of a thought; until the
    next step it stays, so that at gamma 1 everything falls on the ends of steps and on the last action. `gamma` has to
    be the learner's own discount of an action: with another one the best policy can change.

    A state has one potential in a play, whatever the rounding of the batches it was scored in, and at gamma 1 the sums
    of peers are equal to the last bit: a group whose other rewards are equal stays without a signal.
    """

    gamma: float = 1.0
    head: str = "process"

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma={self.gamma}: must be between 0 and 1")

    def over(self, episodes: Sequence[Episode], context: RewardContext) -> list[list[float | np.ndarray]]:
        """Arrays [L] f64; the head is asked once for all. Raises ConfigError where the model has no such head."""
        if self.head not in context.heads:
            known = ", ".join(context.heads) or "none"
            raise ConfigError(f"reward 'shaping': head={self.head}: the model has no such head; known: {known}")
        trajectories = [trajectory for episode in episodes for trajectory in episode.trajectories]
        states = [self._states(trajectory, context) for trajectory in trajectories]
        values = context.heads[self.head]([trajectory.token_ids for trajectory in trajectories], states)
        potentials: dict[bytes, float] = {}  # tokens before a state -> its potential
        tokens = iter(self._tokens(*item, potentials) for item in zip(trajectories, states, values, strict=True))
        return [[next(tokens) for _ in episode.trajectories] for episode in episodes]

    def _states(self, trajectory: Trajectory, context: RewardContext) -> np.ndarray:
        """[L] bool: the first action, and the first one after each step."""
        actions = np.flatnonzero(trajectory.action_mask)
        thoughts = [turn.thought for turn in turns(trajectory, context.tokenizer)]
        ends = [steps(context.tokenizer, trajectory.token_ids, thought)[1] for thought in thoughts]
        after = np.searchsorted(actions, np.concatenate([np.zeros(0, np.int64), *ends])) + 1
        begins = np.zeros(len(trajectory.token_ids), bool)
        begins[actions[:1]] = True
        begins[actions[after[after < len(actions)]]] = True
        return begins

    def _tokens(
        self, trajectory: Trajectory, states: np.ndarray, values: np.ndarray, potentials: dict[bytes, float]
    ) -> np.ndarray:
        actions = trajectory.action_mask
        exact = on_grid(np.asarray(values, np.float64))
        own = [
            potentials.setdefault(trajectory.token_ids[:at].tobytes(), float(exact[at]))
            for at in np.flatnonzero(states)
        ]
        tokens = np.zeros(len(actions))
        held = np.array(own, np.float64)[np.cumsum(states[actions]) - 1]
        tokens[actions] = potential_differences(held, self.gamma)
        return tokens


def potential_differences(potentials: np.ndarray, gamma: float) -> np.ndarray:
    """Potentials [n] f64 of the states that n actions left -> F [n]; after the last action comes the end, whose
    potential is 0. sum of gamma^t F_t = -potentials[0]."""
    after = np.zeros_like(potentials)
    after[:-1] = potentials[1:]
    return gamma * after - potentials
