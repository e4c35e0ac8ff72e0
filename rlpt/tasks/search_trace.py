"""Worked traces that show a depth-first search, with marks for what reasoning does in it: `01|2 ?1!3 <02 23 ?3=3`.

A family says what may be tried in a state and how a finished candidate is checked (`Space`). A step is then one of
    TRIED|OTHERS    an option of the state, and behind the mark what else could be done here (no mark where nothing is)
    ?CHECK          a candidate that is finished, or stuck, with its verdict
    <TRIED|OTHERS   after a failed check: back to the nearest state with something open, and an option of it
so that each step is right or wrong by what stands before it: a candidate that is finished has to be checked, no step
goes back before that, and none comes after a solution.

The behaviours are those that RLSP looks for in thoughts (Ye et al. 2025, "On the Emergence of Thinking in LLMs I"):
backtracking, verification, and alternatives, which are proposed whether or not they are needed later.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol, TypeVar

from rlpt.tasks.base import Task

BACKTRACKING, VERIFICATION, ALTERNATIVE = "<", "?", "|"
State = TypeVar("State", bound=Hashable)
BEHAVIOUR_MARKS = {"backtracking": BACKTRACKING, "verification": VERIFICATION, "alternative": ALTERNATIVE}


@dataclass(frozen=True)
class Option(Generic[State]):
    """Something to try in a state."""

    text: str  # as a step
    label: str  # behind the mark of alternatives
    state: State  # that it leads to


class Space(Protocol[State]):
    """What is searched."""

    revisits: ClassVar[bool]  # whether a state may be entered again by another way
    one_group_decides: ClassVar[bool]  # whether a state fails where one of its groups, any one, is exhausted

    @property
    def start(self) -> State:
        """The state at the beginning."""
        ...

    def groups(self, state: State) -> Sequence[Sequence[Option[State]]]:
        """Groups of options that are alternatives to each other; none where a candidate is finished."""
        ...

    def checks(self, state: State) -> Mapping[str, bool]:
        """The right checks of a candidate that goes no further, and whether they find it a solution."""
        ...


@dataclass
class _Node(Generic[State]):
    state: State
    groups: Sequence[Sequence[Option[State]]]
    text: str = ""  # of the option that led here
    group: Sequence[Option[State]] = ()  # that was last tried from
    tried: set[State] = field(default_factory=set)  # states


@dataclass(frozen=True)
class _Try(Generic[State]):
    node: int  # on the way from the start
    group: Sequence[Option[State]]
    option: Option[State]


class Search(Generic[State]):
    """A depth-first search under way: which steps are right now, and where each leads."""

    def __init__(self, space: Space[State]) -> None:
        self.space = space
        self.steps: list[str] = []  # right ones so far
        self.num_failed = 0  # checks that found no solution
        self.solved = False
        self._failed = False  # whether the last step was such a check
        self._met = {space.start}
        self._nodes = [_Node(space.start, space.groups(space.start))]
        self._legal: dict[str, _Try[State] | bool] | None = None

    @property
    def path(self) -> list[str]:
        """The options taken from the start to the present state."""
        return [node.text for node in self._nodes[1:]]

    def legal(self) -> list[str]:
        """The steps that are right now, in the family's order; empty after a solution, or where nothing is open."""
        return list(self._next())

    def take(self, step: str) -> bool:
        """Whether the step is right; one that is not changes nothing."""
        legal = self._next()
        if step not in legal:
            return False
        action, self._legal = legal[step], None
        self.steps.append(step)
        if isinstance(action, bool):
            self.solved, self._failed = action, not action
            self.num_failed += not action
            return True
        del self._nodes[action.node + 1 :]
        node, option = self._nodes[action.node], action.option
        node.group, self._failed = action.group, False
        node.tried.add(option.state)
        self._met.add(option.state)
        self._nodes.append(_Node(option.state, self.space.groups(option.state), option.text))
        return True

    def _next(self) -> dict[str, _Try[State] | bool]:
        if self._legal is None:
            self._legal = self._find_next()
        return self._legal

    def _find_next(self) -> dict[str, _Try[State] | bool]:
        if self.solved:
            return {}
        last = len(self._nodes) - 1
        if not self._failed:
            found = self._tries(last)
            if found:
                return dict(found)
            return {VERIFICATION + text: verdict for text, verdict in self.space.checks(self._nodes[-1].state).items()}
        for at in range(last, -1, -1):
            found = self._tries(at)
            if found:
                return {BACKTRACKING + text: attempt for text, attempt in found.items()}
        return {}

    def _tries(self, at: int) -> dict[str, _Try[State]]:
        node = self._nodes[at]
        entered = node.tried if self.space.revisits else self._met
        groups = [node.group] if node.group else node.groups
        if not self.space.one_group_decides and all(o.state in entered for group in groups for o in group):
            groups = node.groups
        found: dict[str, _Try[State]] = {}
        for group in groups:
            left = [option for option in group if option.state not in entered]
            for option in left:
                others = {option.state: ""}
                for other in left:
                    others.setdefault(other.state, other.label)
                labels = "".join(others.values())
                text = option.text + (ALTERNATIVE + labels if labels else "")
                found.setdefault(text, _Try(at, group, option))
        return found


def search(space: Space[State], first: Sequence[str] = (), most_failed: int | None = None) -> Search[State]:
    """The search that begins with the options `first` and then takes the family's order, up to a solution or
    `most_failed` + 1 failed checks."""
    found = Search(space)
    for text in first:
        found.take(next(step for step in found.legal() if step.partition(ALTERNATIVE)[0] == text))
    while not found.solved and (most_failed is None or found.num_failed <= most_failed):
        found.take(found.legal()[0])
    return found


def check_search(space: Space[State], trace: str) -> list[float]:
    """1 for each step that is right where it stands, else 0; what follows a wrong step is judged as if it weren't
    there."""
    found = Search(space)
    return [float(found.take(step)) for step in trace.split()]


def show_search(task: Task, characters: str) -> None:
    """Gives this instance of a task the marks, and the alphabet of traces that hold `characters` beside them."""
    marked = "".join(dict.fromkeys(characters + "".join(BEHAVIOUR_MARKS.values()) + " "))
    object.__setattr__(task, "thought_alphabet", marked)
    object.__setattr__(task, "behaviour_marks", BEHAVIOUR_MARKS)
