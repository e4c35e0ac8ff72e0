"""Worked traces in several styles, all of which end in the right answer.

    steps         4:2 3:4 2:1 1:3                        the task's own `solution`
    terse         1:3                                    its last quarter, at least one step
    answer_only                                          no trace
    checked       4:2 ?4:2= 3:4 2:1 ?2:1= 1:3            some steps are said again with the verifier's verdict
    backtracking  4:2 3:9 ?3:9! <3:4 2:1 1:3             a wrong step is found wrong, taken back and put right
    corrected     4:2 3:9 2:1 1:3 ?3:9! <<4:2 3:4 ...    a whole attempt is found wrong, and all is done again
                  2473 ?2473! <4:2 3:4 2:1 1:3           or an answer is

`?STEP=` is a check that finds STEP right, `?STEP!` one that finds it wrong; `<STEP` stands in the place of the step
before it, `<<STEP` begins anew. Verdicts are those of the task's own verifiers. The first marks are those of
`search_trace`; a task whose own traces may hold them gets the next ones that they can't hold. `plain_trace` reads the
steps that count.

A mistake is a slip (`mistakes.wrong_step`). In a whole attempt what follows it is as it should have been, and the check
says that STEP stands where it is wrong, not which one of several that read alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from rlpt.errors import ConfigError
from rlpt.tasks.base import Task, is_evaluation_seed, keyed_random
from rlpt.tasks.mistakes import is_right_step, wrong_answer, wrong_step
from rlpt.tasks.search_trace import BACKTRACKING, VERIFICATION
from rlpt.types import Problem

Style = Literal["answer_only", "terse", "steps", "checked", "backtracking", "corrected"]
STYLES: tuple[Style, ...] = get_args(Style)
RIGHT, WRONG = "=", "!"  # verdicts, behind what is checked
CHECKED_SHARE = 0.5  # of the steps, in `checked`
SLIP_SHARE = 0.25  # of the steps, in `backtracking`
GUESS_SHARE = 0.5  # of `corrected` begin with a wrong answer instead of a wrong attempt
TERSE_ONE_IN = 4
_CHECKS, _BACKS = (VERIFICATION, "~", "'"), (BACKTRACKING, "{", "`")


@dataclass(frozen=True)
class Marks:
    """How a task's marked steps begin."""

    check: str
    back: str


def marks_of(task: Task) -> Marks:
    """Its marks. Raises ConfigError for a task whose own traces may hold them all."""
    found = [next((m for m in marks if m not in task.thought_alphabet), "") for marks in (_CHECKS, _BACKS)]
    if not all(found):
        raise ConfigError(
            f"task {task.name}: its traces may hold every mark of a check, so it has no marked styles; give it "
            "answer_only, terse and steps"
        )
    return Marks(*found)


def styled_alphabet(task: Task, style: str) -> str:
    """Every character that a trace of this style may hold, for a legal-token mask; a wrong answer's are among them."""
    if style in _PLAIN:
        return task.thought_alphabet
    marks = marks_of(task)
    answer = task.alphabet if style == "corrected" else ""
    return "".join(dict.fromkeys(task.thought_alphabet + answer + marks.check + marks.back + RIGHT + WRONG + " "))


def check_style(task: Task, style: str) -> None:
    """Raises ConfigError for a style that this task's documents can't have."""
    if style not in STYLES:
        raise ConfigError(f"unknown style '{style}'; known: {', '.join(STYLES)}")
    if task.kind == "environment" and style not in ("answer_only", "steps"):
        raise ConfigError(
            f"task {task.name}: is of the kind 'environment', whose documents are whole episodes, so it has no style "
            f"'{style}'; give it {{steps: 1}}"
        )
    if style not in _PLAIN:
        marks_of(task)


def worked_trace(task: Task, problem: Problem, style: str) -> str:
    """The trace of `style`, a function of (problem, style); empty for `answer_only`. Raises ConfigError where the task
    has none of this style, or no mistake that its verifier finds."""
    check_style(task, style)
    if style == "answer_only":
        return ""
    solution = task.solution(problem)
    if style == "steps":
        return solution
    steps = solution.split()
    if style == "terse":
        return " ".join(steps[-max(1, len(steps) // TERSE_ONE_IN) :])
    return " ".join(_MARKED[style](task, problem, steps))


def worked_document(task: Task, problem: Problem, style: str) -> str:
    """The marked text of a corpus: prompt, trace of `style`, right answer. Raises ConfigError as `worked_trace` and
    ValueError for a problem of evaluation."""
    if is_evaluation_seed(problem.seed):
        raise ValueError(f"{problem}: has an evaluation seed, so no corpus may show its solution")
    return task.document(problem, worked_trace(task, problem, style))


def plain_trace(task: Task, trace: str) -> str:
    """The steps that count: without checks, and without what was taken back. Any text at all is read."""
    marks, steps = marks_of(task), list[str]()
    for step in trace.split():
        if step.startswith(marks.check):
            continue
        if step.startswith(2 * marks.back):
            steps.clear()
        elif step.startswith(marks.back):
            del steps[-1:]
        steps.append(step.lstrip(marks.back))
    return " ".join(steps)


def _checked(task: Task, problem: Problem, steps: list[str]) -> list[str]:
    """Steps that the verifier finds right are said again with its verdict: about half of them, one at least."""
    rng, marks = _generator(problem, "checked"), marks_of(task)
    chosen = _some(len(steps), CHECKED_SHARE, rng)
    verdicts = task.verify_steps(problem, " ".join(steps))
    shown = []
    for at, step in enumerate(steps):
        shown.append(step)
        if at in chosen:
            shown.append(marks.check + step + (RIGHT if verdicts[at] == 1.0 else WRONG))
    return shown


def _backtracking(task: Task, problem: Problem, steps: list[str]) -> list[str]:
    """Some steps, one at least, are wrong at first."""
    rng, marks = _generator(problem, "backtracking"), marks_of(task)
    chosen = _some(len(steps), SLIP_SHARE, rng)
    shown = []
    for at, step in enumerate(steps):
        if at in chosen:
            slip = wrong_step(task, problem, steps, at, rng)
            shown += [slip, marks.check + slip + WRONG, marks.back + step]
        else:
            shown.append(step)
    return shown


def _corrected(task: Task, problem: Problem, steps: list[str]) -> list[str]:
    """A wrong answer, or an attempt with a wrong step in it, then the steps. An answer that holds spaces, or is a right
    first step, can't stand for a guess; then it is an attempt."""
    rng, marks = _generator(problem, "corrected"), marks_of(task)
    if rng.random() < GUESS_SHARE:
        guess = wrong_answer(task, problem)
        if guess.split() == [guess] and _is_wrong_guess(task, problem, guess, marks):
            return [guess, marks.check + guess + WRONG, marks.back + steps[0], *steps[1:]]
    at = rng.randrange(len(steps))
    slip = wrong_step(task, problem, steps, at, rng)
    attempt = [*steps[:at], slip, *steps[at + 1 :]]
    return [*attempt, marks.check + slip + WRONG, 2 * marks.back + steps[0], *steps[1:]]


def _is_wrong_guess(task: Task, problem: Problem, guess: str, marks: Marks) -> bool:
    """Whether it can stand where a step does: no mark, and wrong as a step, too."""
    return not guess.startswith((marks.check, marks.back)) and not is_right_step(task, problem, [], guess)


def _some(count: int, share: float, rng: random.Random) -> set[int]:
    """Indices below `count`: each with probability `share`, and one drawn evenly in any case."""
    return {rng.randrange(count)} | {at for at in range(count) if rng.random() < share}


def _generator(problem: Problem, style: str) -> random.Random:
    return keyed_random(problem.task, problem.seed, problem.level, f"style {style}")


_MARKED: dict[str, Callable[[Task, Problem, list[str]], list[str]]] = {
    "checked": _checked,
    "backtracking": _backtracking,
    "corrected": _corrected,
}
_PLAIN = frozenset(STYLES) - _MARKED.keys()
