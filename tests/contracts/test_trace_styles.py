"""What every native task's worked traces owe in each style: the right answer, and mistakes that its verifiers find."""

import pytest
from helpers.tasks import problems, task_names

from rlpt.errors import ConfigError
from rlpt.registry import lookup
from rlpt.tasks.base import create_task, evaluation_seed
from rlpt.tasks.mistakes import is_right_step, wrong_answer
from rlpt.tasks.styles import STYLES, marks_of, plain_trace, styled_alphabet, worked_document, worked_trace
from rlpt.template import parse_answer

NAMES = [name for name in task_names("native") if lookup("task", name).kind != "environment"]
SEARCHED = [f"{name}-search_trace" for name in NAMES if "search_trace" in lookup("task", name).__dataclass_fields__]
MARKED = ("checked", "backtracking", "corrected")


@pytest.fixture(params=[*NAMES, *SEARCHED])
def task(request):
    name, _, option = request.param.partition("-")
    return create_task({"name": name} | ({option: True} if option else {}))


def some(task):
    for level in {0, 2, 5, task.max_level}:
        yield from problems(task, level, 3)


def test_answers_are_right_and_characters_are_of_the_styles_alphabet(task):
    for problem in some(task):
        for style in STYLES:
            document, trace = worked_document(task, problem, style), worked_trace(task, problem, style)
            assert document == task.document(problem, trace)
            assert task.verify(problem, parse_answer(document)) == 1
            assert set(trace) <= set(styled_alphabet(task, style))
            assert bool(trace) == (style != "answer_only")
            assert trace.isascii(), "every such character has its token"
        solution = task.solution(problem)
        assert worked_trace(task, problem, "steps") == solution
        assert solution.endswith(worked_trace(task, problem, "terse"))


def test_what_counts_of_a_marked_trace_is_the_solution(task):
    for problem in some(task):
        for style in MARKED:
            trace = worked_trace(task, problem, style)
            assert len(trace) > len(task.solution(problem))
            assert plain_trace(task, trace) == " ".join(task.solution(problem).split())


def test_verdicts_are_the_verifiers(task):
    """Reads the traces as a reader would: each check is of a step that was said, with what the verifier says of it."""
    marks = marks_of(task)
    for problem in some(task):
        for style in MARKED:
            said, wrong = [], 0
            steps = worked_trace(task, problem, style).split()
            for step, following in zip(steps, [*steps[1:], ""], strict=True):
                if step.startswith(marks.check):
                    checked, verdict = step[1:-1], step[-1]
                    places = [at for at, other in enumerate(said) if other == checked]
                    verdicts = [is_right_step(task, problem, said[:at], checked) for at in places]
                    is_whole = following.startswith(2 * marks.back)  # any of the steps is meant, else the last one
                    right = all(verdicts) if is_whole else verdicts[-1]
                    assert verdict == ("=" if right else "!")
                    wrong += not right
                elif step.startswith(2 * marks.back):
                    assert wrong, "nothing is taken back that was not found wrong"
                    said = [step[2:]]
                elif step.startswith(marks.back):
                    assert wrong
                    said[-1] = step[1:]
                else:
                    said.append(step)
            assert bool(wrong) == (style != "checked")
            assert task.verify_steps(problem, " ".join(said)) == [1.0] * len(said)


def test_a_wrong_answer_is_wrong(task):
    for problem in some(task):
        assert task.verify(problem, wrong_answer(task, problem)) < 1


@pytest.mark.parametrize("name", [name for name in task_names("native") if name not in NAMES])
def test_episodes_of_environments_are_shown_as_they_are(name):
    task = create_task({"name": name})
    for problem in problems(task, 2, 2):
        assert worked_document(task, problem, "steps") == task.document(problem, task.solution(problem))
        with pytest.raises(ConfigError, match="whose documents are whole episodes"):
            worked_document(task, problem, "backtracking")


def test_guesses_and_attempts_both_occur_and_depend_on_the_problem_alone():
    task = create_task({"name": "reverse"})
    asked = problems(task, 3, 40)
    traces = [worked_trace(task, problem, "corrected") for problem in asked]
    assert traces == [worked_trace(task, task.sample(problem.seed, 3), "corrected") for problem in asked]
    assert 8 < sum("<<" in trace for trace in traces) < 32


def test_evaluation_problems_and_unmarkable_tasks_are_refused():
    task = create_task({"name": "sort"})
    with pytest.raises(ValueError, match="evaluation seed"):
        worked_document(task, task.sample(evaluation_seed(1), 2), "steps")
    with pytest.raises(ConfigError, match="unknown style 'step'"):
        worked_document(task, problems(task, 1, 1)[0], "step")
    printable = create_task({"name": "copy", "symbols": 94})
    with pytest.raises(ConfigError, match="may hold every mark"):
        worked_document(printable, problems(printable, 1, 1)[0], "checked")
