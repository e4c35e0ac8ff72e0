"""Each family against cases worked by hand."""

import itertools
import random

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.tasks.arithmetic.countdown import join, parse_expression
from rlpt.tasks.base import create_task, keyed_hash, position_credit
from rlpt.tasks.graphs.path import distances_to, shortest_path, valid_prefix
from rlpt.types import Problem


def test_keyed_hash_tells_parts_apart():
    assert keyed_hash("a", 1) == keyed_hash("a", 1)
    assert len({keyed_hash("a", 1), keyed_hash("a1"), keyed_hash("a", 11), keyed_hash("a1", 1)}) == 4


@pytest.mark.parametrize(
    ("answer", "credit"), [("1234", 1.0), ("1235", 0.75), ("12", 0.5), ("12349", 0.8), ("", 0.0), ("4321", 0.0)]
)
def test_position_credit(answer, credit):
    assert position_credit(answer, "1234") == credit


@pytest.mark.parametrize("name", ["reverse", "sort"])
def test_sequence_oracles(name):
    task = create_task({"name": name})
    for seed in range(20):
        problem = task.sample(seed, 6)
        text = problem.prompt.split()[1]
        assert problem.answer == (text[::-1] if name == "reverse" else "".join(sorted(text)))


def test_sequence_traces():
    reverse = Problem("reverse", 0, 2, "reverse 314", "413", {"text": "314"})
    assert create_task({"name": "reverse"}).solution(reverse) == "3:4 2:1 1:3"
    sort = create_task({"name": "sort"})
    problem = Problem("sort", 0, 3, "sort 3141", "1134", {"text": "3141"})
    assert sort.solution(problem) == "1:2 3:1 4:1"
    assert sort.verify_steps(problem, "1:2 3:2 4:1 5:1") == [1, 0, 1, 0]


def test_addition_carries_and_credit():
    task, reverse = create_task({"name": "addition"}), create_task({"name": "addition", "reversed_answer": True})
    problem = Problem("addition", 0, 3, "add 58+67", "125", {"first": 58, "second": 67})
    assert task.solution(problem) == "8+7+0=15 5+6+1=12"
    assert task.verify(problem, "25") == pytest.approx(0.9 * 2 / 3)
    assert task.verify(problem, "025") == pytest.approx(0.9 * 2 / 3)
    assert task.verify(problem, "120") == pytest.approx(0.9 * 2 / 3)
    backwards = reverse.sample(9, 5)
    assert int(backwards.answer[::-1]) == backwards.meta["first"] + backwards.meta["second"]
    assert reverse.verify(backwards, backwards.answer) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("9-3-2", 4),
        ("9-(3-2)", 8),
        ("((4))", 4),
        ("2*3*4-1", 23),
        ("1-2", -1),
    ],
)
def test_expression_values(text, value):
    assert parse_expression(text)[0] == value == eval(text)


@pytest.mark.parametrize(
    "text",
    ["", "+", "1+", "(1", "1)", "()", "-1", "1 + 2", "01", "9**9", "2(3)", "1//1", "1_0", "٣", "9999999999"],
)
def test_texts_that_are_no_expression(text):
    assert parse_expression(text) is None


@pytest.mark.parametrize(
    "text", ["999999999*999999999", "(" * 5000 + "1" + ")" * 5000, "1+" * 40000, "1+" * 40000 + "x"], ids=len
)
def test_huge_expressions_are_refused(text):
    assert parse_expression(text) is None


def test_generated_expressions_match_python():
    rng = random.Random(4)
    for _ in range(300):
        numbers = [rng.randint(1, 30) for _ in range(rng.randint(1, 6))]
        value, text, steps = join(rng, numbers, "+-*")
        parsed = parse_expression(text)
        assert parsed is not None
        assert parsed[0] == value == eval(text)
        assert sorted(parsed[1]) == sorted(numbers)
        assert len(steps) == len(numbers) - 1


def test_countdown_credit_climbs():
    task = create_task({"name": "countdown"})
    problem = Problem("countdown", 0, 3, "countdown 8: 1 3 2", "(1+3)*2", {"numbers": [1, 3, 2], "target": 8})
    climb = ["1+", "9", "1", "2*3", "2*3+1", "2*(3+1)"]
    scores = [task.verify(problem, answer) for answer in climb]
    assert scores == sorted(set(scores))
    assert (scores[0], scores[-1]) == (0, 1)
    assert task.verify(problem, "2*2*2") == pytest.approx(0.18), "2 is given once"
    assert task.verify_steps(problem, "1+3=4 4*2=8") == [1, 1]
    assert task.verify_steps(problem, "1+3=5 5*2=10 3*2=6 3-1=2") == [0, 0, 1, 0]


EDGES = ["01", "12", "13", "34"]


def test_graph_helpers():
    assert distances_to("4", EDGES) == {"4": 0, "3": 1, "1": 2, "0": 3, "2": 3}
    assert shortest_path("0", "4", EDGES) == "0134"
    assert [valid_prefix(text, "0", EDGES) for text in ("", "1", "0", "012", "0101", "014", "09")] == [
        0,
        0,
        1,
        3,
        2,
        2,
        1,
    ]


def test_graph_path_credit():
    task = create_task({"name": "graph_path"})
    problem = Problem("graph_path", 0, 3, "", "0134", {"start": "0", "goal": "4", "edges": EDGES})
    climb = ["4", "0", "01", "013", "0134"]
    scores = [task.verify(problem, answer) for answer in climb]
    assert scores == sorted(set(scores))
    assert (scores[0], scores[-1]) == (0, 1)
    assert task.verify(problem, "01343") <= 0.9
    assert task.verify(problem, "012") < task.verify(problem, "013"), "a detour is worth less"
    longer = Problem("graph_path", 0, 3, "", "04", {"start": "0", "goal": "4", "edges": ["01", "04", "14"]})
    assert task.verify(longer, "014") == 1, "any path is right"
    assert task.verify_steps(problem, "01 12 34 13 34") == [1, 1, 0, 0, 0]


def test_graph_distance_is_the_level_s():
    task = create_task({"name": "graph_path"})
    for level, seed in itertools.product((5, 9), range(20)):
        problem = task.sample(seed, level)
        lengths = distances_to(problem.meta["goal"], problem.meta["edges"])
        assert lengths[problem.meta["start"]] == len(problem.answer) - 1 in ((3, 4) if level == 5 else (6,))
        assert set(lengths) == set(task.legal_characters(level)), "connected"
