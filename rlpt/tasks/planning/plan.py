"""What planning tasks share: an answer is a string of moves, a letter each, that is played from a start to a goal."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from rlpt.tasks.base import Task
from rlpt.types import Problem

OPPOSITE = {"U": "D", "D": "U", "L": "R", "R": "L"}  # moves in a grid, by those that they undo
LEGAL_SHARE = 0.2  # of the credit of a plan that does not arrive; the rest is for progress


@dataclass(frozen=True)
class PlanTask(Task):
    """Any legal moves that end at the goal are right. Else the credit is `LEGAL_SHARE` x the share of moves before the
    first illegal one, plus the rest x how much nearer those bring the state to the goal.

    A problem's meta holds the states `start` and `goal`.
    """

    unique_answer: ClassVar[bool] = False

    @abstractmethod
    def successor(self, problem: Problem, state: str, move: str) -> str | None:
        """The state after a move; None where the move is illegal."""

    @abstractmethod
    def distance(self, problem: Problem, state: str) -> float:
        """How far a state is from the goal: 0 there and nowhere else."""

    def states(self, problem: Problem, moves: str) -> list[str]:
        """The start and the state after each move, up to the first illegal one."""
        found = [problem.meta["start"]]
        for move in moves:
            state = self.successor(problem, found[-1], move)
            if state is None:
                break
            found.append(state)
        return found

    def solution(self, problem: Problem) -> str:
        """`move:state` for each move of the answer."""
        states = self.states(problem, problem.answer)[1:]
        return " ".join(f"{move}:{state}" for move, state in zip(problem.answer, states))

    def check_steps(self, problem: Problem, trace: str) -> list[float]:
        """A step is right when its move is legal where the last right step ended, and leads to the state that it names,
        one that was not met before."""
        state, scores = problem.meta["start"], []
        met = {state}
        for step in trace.split():
            following = self.successor(problem, state, step[0]) if step[0] in self.alphabet else None
            right = following is not None and following not in met and step == f"{step[0]}:{following}"
            if right:
                state = following
                met.add(state)
            scores.append(float(right))
        return scores

    def grade(self, problem: Problem, answer: str) -> float:
        """See the class."""
        states = self.states(problem, answer)
        legal = (len(states) - 1) / len(answer)
        if legal == 1 and states[-1] == problem.meta["goal"]:
            return 1.0
        progress = 1 - self.distance(problem, states[-1]) / self.distance(problem, problem.meta["start"])
        return LEGAL_SHARE * legal + (1 - LEGAL_SHARE) * max(0.0, progress)
