"""Traces of searches against cases worked by hand, another reading of them, and every change of a step."""

import random
from collections import Counter

import pytest
from helpers.tasks import problems

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.tasks.arithmetic.countdown import OPERATORS, Joins, expression, parse_expression
from rlpt.tasks.base import create_task
from rlpt.tasks.graphs.path import Walk
from rlpt.tasks.logic.satisfiability import Assignments
from rlpt.tasks.search_trace import BEHAVIOUR_MARKS, Search
from rlpt.types import Problem

FAMILIES = ("graph_path", "countdown", "satisfiability")


def make(name, shown=True):
    return create_task({"name": name, "search_trace": shown})


def path_problem(start, goal, edges):
    return Problem("graph_path", 0, 4, "", "", {"start": start, "goal": goal, "edges": edges.split()})


def test_path_by_hand():
    task = make("graph_path")
    # 0 joins 1, 2 and 4; 1 leads on to 3 only, and 2 to the goal.
    problem = path_problem("0", "5", "01 02 04 13 25 23")
    trace = "01|24 13 32 25 ?5=5"
    assert task.solution(problem) == trace
    problem = path_problem("0", "5", "01 02 04 13 25")
    trace = "01|24 13 ?3!5 <02|4 25 ?5=5"
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace) == [1] * 6
    assert task.verify_steps(problem, "04|12 ?4!5 <01|2 13 ?3!5 <02 25 ?5=5") == [1] * 8, "another order"
    for text, scores in {
        "01 01|2 02|14 ?2!5 <01|4 25": (
            0,
            0,
            1,
            0,
            0,
            1,
        ),  # all others are listed; nothing is dead, nothing is taken back
        "01|24 <02|4 13 <02|4 ?3=5 ?3!5": (1, 0, 1, 0, 0, 1),  # no way back before the check, and its verdict is right
        "04|12 ?4!5 ?4!5 01|2 <04|12 <01|2": (1, 1, 0, 0, 0, 1),  # once; from the start again; not to what is done
        "02|14 25 ?5!5 ?5=5 ?5=5 <01|4": (1, 1, 0, 1, 0, 0),  # a solution ends it
    }.items():
        assert task.verify_steps(problem, text) == list(scores), text


def test_paths_do_not_walk_in_circles():
    task = make("graph_path")
    problem = path_problem("0", "4", "01 12 02 34 03")
    assert task.solution(problem) == "01|23 12 ?2!4 <03 34 ?4=4", "2 has been met, so it is nothing to go back for"
    assert task.verify_steps(problem, "01|23 12 20 ?2!4 <02|3 <03") == [1, 1, 0, 1, 0, 1]
    assert task.solution(path_problem("0", "0", "01")) == "?0=0"


def test_countdown_by_hand():
    task = make("countdown")
    meta = {"numbers": [1, 3, 2], "target": 8, "steps": ["1+3=4", "4*2=8"]}
    problem = Problem("countdown", 0, 3, "", "", meta)
    # From the numbers alone, 1+2 leaves three candidates in vain; after 1+3, two others come before 2*4.
    trace = "1+3=4|-* 2+4=6|-* ?6!8 <4-2=2|* ?2!8 <2*4=8 ?8=8"
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace) == [1] * 7
    assert task.verify_steps(problem, "3+1=4|-* 4*2=8|+- ?8=8") == [1] * 3, "either order of terms"
    assert task.verify_steps(problem, "2-1=1|+* 1*3=3|+- ?3!8 <3+1=4|- ?4!8 <3-1=2 ?2!8 <1+2=3|*") == [1] * 8
    for text, scores in {
        "1+3=4 1+3=5|-* 1-3=-2|+* 4+2=6|-* 1+3=4|-*": (0, 0, 0, 0, 1),
        "1+3=4|-* 4-2=2|+* ?2=8 ?2!8 <4+2=6 <2+4=6|*": (1, 1, 0, 1, 0, 1),
        "3*2=6|+- 6*1=6|+- ?6!8 <6-1=5 <6-1=5|+ <6+1=7": (1, 1, 1, 0, 1, 0),
    }.items():
        assert task.verify_steps(problem, text) == list(scores), text
    assert task.solution(Problem("countdown", 0, 0, "", "", {"numbers": [3], "target": 3, "steps": ["3"]})) == "?3=3"


def test_countdown_goes_on_with_other_numbers():
    problem = Problem("countdown", 0, 2, "", "", {"numbers": [1, 2, 4], "target": 5, "steps": ["1+4=5"]})
    search = Search(Joins([1, 2, 4], 7, "+"))
    assert all(search.take(step) for step in ("1+2=3", "3+4=7", "?7=7"))
    trace = "1+2=3|- 3+4=7|- ?7!5 <4-3=1 ?1!5 <2-1=1 1+4=5|- ?5=5"
    assert make("countdown").verify_steps(problem, trace) == [1] * 8
    other = "1+2=3|- 3+4=7|- ?7!5 <4-3=1 ?1!5 <2-1=1 4-1=3|+ ?3!5 <1+4=5 ?5=5"
    assert make("countdown").verify_steps(problem, other) == [1] * 10
    exhausted = "1+2=3|- 4-3=1|+ ?1!7 <3+4=7 ?7!5 <2-1=1 4-1=3|+ ?3!5 <4+1=5"
    assert make("countdown").verify_steps(problem, exhausted)[2] == 0, "the verdict names the target"
    search = Search(Joins([1, 1, 4], 9, "+"))
    steps = ("1+1=2", "2+4=6", "?6!9", "<1+4=5", "1+5=6", "?6!9")
    assert [search.take(step) for step in steps] == [True] * 6, "a pair that is done leaves the others"
    assert search.legal() == [], "nothing is left to try"


def test_expression_of_operations():
    assert expression([1, 3, 2], ["1+3=4", "4*2=8"]) == "(1+3)*2"
    assert expression([4, 2, 2], ["4-2=2", "2-2=0"]) == "4-2-2"
    assert expression([7], []) == "7"


def test_satisfiability_by_hand():
    task = make("satisfiability")
    meta = {"variables": "abc", "clauses": ["Ab", "AB", "aC", "bc"]}
    problem = Problem("satisfiability", 0, 2, "", "010", meta)
    trace = "a|A Ab:b ?AB! <A aC:C bc:b ?AbC="
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace) == [1] * 7
    assert task.verify_steps(problem, "A|a aC:C b|B ?AbC=") == [1] * 4, "other literals first"
    for text, scores in {
        "a|A AB:B ?Ab! <A b|B C|c ?AbC=": (1, 1, 1, 1, 1, 1, 1),
        "a a|A Ab:b bc:c c|C <A ?Ab! ?AB! <A": (0, 1, 1, 0, 0, 0, 0, 1, 1),  # a false clause is found before all else
        "A|a c|C ?AC! ?aC! <C ?AC= bc:b ?abC= ?AbC=": (1, 1, 0, 1, 1, 0, 1, 0, 1),
    }.items():
        assert task.verify_steps(problem, text) == list(scores), text


@pytest.mark.parametrize("name", FAMILIES)
def test_the_option_alone_adds_marks(name):
    shown, plain = make(name), make(name, False)
    assert plain == create_task({"name": name})
    assert plain.behaviour_marks == {}
    assert shown.behaviour_marks == BEHAVIOUR_MARKS
    assert set(BEHAVIOUR_MARKS.values()) <= set(shown.thought_alphabet)
    assert plain.thought_alphabet == type(plain).thought_alphabet != shown.thought_alphabet
    for level in range(10):
        for one, other in zip(problems(shown, level, 5), problems(plain, level, 5), strict=True):
            assert (one.prompt, one.meta) == (other.prompt, other.meta)
            assert shown.verify(other, one.answer) == plain.verify(one, other.answer) == 1


@pytest.mark.parametrize("name", FAMILIES)
def test_a_wrong_answer_earns_the_same_with_the_option(name):
    shown, plain, rng = make(name), make(name, False), random.Random(0)
    for level in range(10):
        for one, other in zip(problems(shown, level, 10), problems(plain, level, 10), strict=True):
            answer = plain.random_answer(other, rng)
            assert shown.verify(one, answer) == plain.verify(other, answer)


def answer_of(name, problem, steps):
    """The answer that a trace ends with, read off the steps that no return took back."""
    way = []
    for step in steps:
        text = step.removeprefix("<").partition("|")[0]
        if step[0] == "<" and name == "graph_path":
            way = way[: [edge[0] for edge in way].index(text[0])]
        elif step[0] == "<":
            way = way[: way.index(text.lower())]
        if step[0] != "?":
            way.append(text)
    if name == "graph_path":
        return problem.meta["start"] + "".join(edge[1] for edge in way)
    return "".join("01"[variable in {text[-1] for text in way}] for variable in problem.meta["variables"])


@pytest.mark.parametrize("name", FAMILIES)
def test_worked_traces_lead_to_the_answer(name):
    task = make(name)
    for level in range(10):
        for problem in problems(task, level, 40):
            steps = task.solution(problem).split()
            assert [step[0] == "?" and "!" not in step for step in steps].index(True) == len(steps) - 1
            assert sum("!" in step for step in steps) == sum(step[0] == "<" for step in steps)
            if name == "countdown":
                value, numbers = parse_expression(problem.answer)
                assert steps[-1] == f"?{value}={problem.meta['target']}"
                assert Counter(numbers) == Counter(problem.meta["numbers"])
                assert sum("!" in step for step in steps) <= 2
            else:
                assert answer_of(name, problem, steps) == problem.answer


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_0_to_2_are_short_and_show_each_behaviour(name):
    task = make(name)
    traces = [task.solution(problem) for level in range(3) for problem in problems(task, level, 100)]
    assert max(map(len, traces)) <= 60
    for mark in BEHAVIOUR_MARKS.values():
        assert sum(mark in trace for trace in traces[200:]) >= 20


@pytest.mark.parametrize("name", FAMILIES)
def test_a_trace_without_one_of_its_steps_is_not_all_right(name):
    task = make(name)
    for level in (1, 3, 5, 9):
        for problem in problems(task, level, 10):
            steps = task.solution(problem).split()
            for at in range(len(steps) - 1):  # without the last check it only isn't finished
                assert 0 in task.verify_steps(problem, " ".join(steps[:at] + steps[at + 1 :])), steps
            for at, step in enumerate(steps):
                twice = task.verify_steps(problem, " ".join(steps[: at + 1] + steps[at:]))
                assert twice == [1] * (at + 1) + [0] + [1] * (len(steps) - at - 1)
                for mark in "<?|":
                    assert task.verify_steps(problem, " ".join([*steps[:at], mark + step]))[-1] == 0


def space_of(name, problem):
    meta = problem.meta
    if name == "graph_path":
        return Walk(meta["start"], meta["goal"], meta["edges"])
    if name == "satisfiability":
        return Assignments(meta["variables"], meta["clauses"])
    return Joins(meta["numbers"], meta["target"], OPERATORS[problem.level])


@pytest.mark.parametrize(
    ("name", "levels"), [("graph_path", (1, 4, 9)), ("countdown", (1, 2, 3)), ("satisfiability", (1, 4, 9))]
)
def test_any_search_by_the_rules_comes_to_a_solution(name, levels):
    task, rng = make(name), random.Random(2)
    for level in levels:
        for problem in problems(task, level, 15):
            search = Search(space_of(name, problem))
            while legal := search.legal():
                search.take(rng.choice(legal))
            assert search.solved
            assert set(task.check_steps(problem, " ".join(search.steps))) == {1.0}
