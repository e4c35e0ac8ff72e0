"""The arithmetic families against cases worked by hand and oracles computed another way."""

import random
import re

import pytest
from helpers.tasks import problems

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.tasks.arithmetic.countdown import combine
from rlpt.tasks.arithmetic.expression import build
from rlpt.tasks.arithmetic.modular_inverse import PRIMES, is_prime
from rlpt.tasks.arithmetic.multiplication import place_values
from rlpt.tasks.arithmetic.numeral import aligned_credit, random_number
from rlpt.tasks.base import create_task
from rlpt.types import Problem


def make(name):
    return create_task({"name": name})


def all_problems(task, count=20):
    return [problem for level in range(task.max_level + 1) for problem in problems(task, level, count)]


def true_step(step):
    """Whether `left operator right = value` holds, for numbers with or without a sign."""
    left, operator, right, value = re.fullmatch(r"(-?\d+)([-+*%])(-?\d+)=(-?\d+)", step).groups()
    if operator == "%":
        return int(left) % int(right) == int(value)
    return combine(int(left), operator, int(right)) == int(value)


def test_numeral_helpers():
    rng = random.Random(0)
    assert {random_number(rng, 1) for _ in range(300)} == set(range(10))
    assert {len(str(random_number(rng, 3))) for _ in range(300)} == {3}
    assert [aligned_credit(answer, "-27") for answer in ("-27", "27", "7", "-72", "-")] == pytest.approx(
        [1, 2 / 3, 1 / 3, 1 / 3, 0]
    )


def subtraction(first, second):
    return Problem("subtraction", 0, 3, "", str(first - second), {"first": first, "second": second})


@pytest.mark.parametrize(
    ("first", "second", "trace"),
    [
        (31, 58, "31<58 8-1-0=7 5-3-0=2"),
        (52, 37, "52>37 12-7-0=5 5-3-1=1"),
        (100, 1, "100>1 10-1-0=9 10-0-1=9 1-0-1=0"),
        (7, 7, "7=7 7-7-0=0"),
        (8, 90, "8<90 10-8-0=2 9-0-1=8"),
    ],
)
def test_subtraction_traces(first, second, trace):
    assert make("subtraction").solution(subtraction(first, second)) == trace


def test_subtraction_credit_and_steps():
    task = make("subtraction")
    problem = subtraction(31, 58)
    assert [task.verify(problem, answer) for answer in ("8", "7", "27", "-27")] == pytest.approx([0, 0.3, 0.6, 1])
    assert all(task.verify(problem, answer) < 1 for answer in ("-027", "--27", "27-", "-2", "-"))
    assert task.verify_steps(problem, "31>58 8-1-0=7 5-3-0=3") == [0, 1, 0]
    signs = set()
    for problem in all_problems(task):
        first, second = map(int, re.fullmatch(r"subtract (\d+)-(\d+)", problem.prompt).groups())
        assert int(problem.answer) + second == first
        digits = [step.split("=")[1] for step in task.solution(problem).split()[1:]]
        assert int("".join(reversed(digits))) == abs(int(problem.answer)), "the columns make the answer"
        signs.add((problem.level > 0, problem.answer[0] == "-"))
    assert signs == {(False, False), (True, False), (True, True)}
    assert {problem.answer for problem in problems(task, 0, 200)} == {"0", "1", "2"}


def multiplication(first, second):
    return Problem("multiplication", 0, 3, "", str(first * second), {"first": first, "second": second})


def test_multiplication_traces_and_credit():
    task = make("multiplication")
    assert place_values(207) == [7, 0, 200]
    problem = multiplication(34, 27)
    assert task.solution(problem) == "34*7=238 34*20=680 238+680=918"
    assert task.solution(multiplication(34, 20)) == "34*0=0 34*20=680 0+680=680"
    assert task.solution(multiplication(6, 7)) == "6*7=42"
    assert [task.verify(problem, answer) for answer in ("1", "8", "18", "018", "918")] == pytest.approx(
        [0, 0.3, 0.6, 0.6, 1]
    )


def test_multiplication_steps_in_any_order():
    task = make("multiplication")
    problem = multiplication(34, 127)
    assert task.verify_steps(problem, "34*100=3400 34*7=238 238+3400=3638 34*20=680 680+3638=4318") == [1] * 5
    assert task.verify_steps(problem, "34*7=239 34*7=238 34*7=238 34*27=918 238+680=918") == [0, 1, 0, 0, 0]
    assert task.verify_steps(problem, "34*7=238 34*20=680 238+680=918 238+680=918 918+0=918") == [1, 1, 1, 0, 0]
    assert task.verify_steps(problem, "27*34=918 34*7 =238 34*\u0667=238") == [0, 0, 0, 0]
    assert task.verify_steps(multiplication(3, 100), "3*0=0 3*0=0 3*0=0 0+0=0 3*100=300 0+300=300") == [
        1,
        1,
        0,
        1,
        1,
        1,
    ]


def test_multiplication_oracle():
    task = make("multiplication")
    for problem in all_problems(task):
        first, second = map(int, re.fullmatch(r"multiply (\d+)\*(\d+)", problem.prompt).groups())
        assert int(problem.answer) == first * second
        steps = task.solution(problem).split()
        assert all(true_step(step) for step in steps)
        assert steps[-1].endswith("=" + problem.answer)
    assert {problem.answer for problem in problems(task, 0, 200)} == set(task.legal_characters(0)) == {"4", "6", "8"}


def test_expressions_read_from_left_to_right():
    rng = random.Random(5)
    for _ in range(400):
        steps = []
        part = build(rng, rng.randint(1, 8), "+-*", 300, steps)
        assert part.value == eval(part.text)
        assert all(true_step(step) for step, _ in steps)
        assert all(abs(int(step.split("=")[1])) <= 300 for step, _ in steps)
        assert all(index < at for at, (_, needed) in enumerate(steps) for index in needed)
        assert len(steps) == len(re.findall(r"[-+*]", part.text))


def test_expression_oracle():
    task = make("expression")
    for problem in all_problems(task):
        assert int(problem.answer) == eval(problem.prompt.removeprefix("expression "))
        assert task.solution(problem).endswith("=" + problem.answer)
    assert {problem.answer for problem in problems(task, 0, 200)} == {"0", "1", "2"}
    negative = [problem.answer[0] == "-" for problem in problems(task, 4, 100)]
    assert 20 <= sum(negative) <= 80


def test_expression_steps_and_credit():
    task = make("expression")
    meta = {"steps": ["3-5=-2", "1+1=2", "-2*2=-4", "-4+1=-3"], "needs": [[], [], [0, 1], [2]]}
    problem = Problem("expression", 0, 4, "expression (3-5)*(1+1)+1", "-3", meta)
    assert task.solution(problem) == "3-5=-2 1+1=2 -2*2=-4 -4+1=-3"
    assert task.verify_steps(problem, "1+1=2 3-5=-2 -2*2=-4 -4+1=-3") == [1] * 4, "either bracket may come first"
    assert task.verify_steps(problem, "1+1=2 -2*2=-4 3-5=-2 3-5=-2 2+2=4") == [1, 0, 1, 0, 0]
    assert [task.verify(problem, answer) for answer in ("5", "3", "-3")] == pytest.approx([0, 0.45, 1])
    twice = Problem("expression", 0, 3, "", "8", {"steps": ["2+2=4", "2+2=4", "4+4=8"], "needs": [[], [], [0, 1]]})
    assert task.verify_steps(twice, "2+2=4 4+4=8 2+2=4 2+2=4 4+4=8") == [1, 0, 1, 0, 1]


def test_modular_inverse_trace_and_credit():
    task = make("modular_inverse")
    problem = Problem("modular_inverse", 0, 4, "", "13 11", {"prime": 19, "numbers": [3, 26]})
    assert task.solution(problem) == (
        "3%19=3 19-6*3=1 0-6*1=-6 -6%19=13 26%19=7 19-2*7=5 0-2*1=-2 7-1*5=2 1-1*-2=3 5-2*2=1 -2-2*3=-8 -8%19=11"
    )
    one = Problem("modular_inverse", 0, 0, "", "1", {"prime": 3, "numbers": [7]})
    assert task.solution(one) == "7%3=1 1%3=1"
    climb = ["4", "3 2", "13", "1 11", "13 11"]
    scores = [task.verify(problem, answer) for answer in climb]
    assert scores == pytest.approx([0, 0, 0.45, 0.675, 1])
    assert all(task.verify(problem, answer) < 1 for answer in ("13  11", "13 11 ", " 13 11", "1311", "13 1"))
    assert task.verify_steps(one, "7%3=1 1%3=2") == [1, 0]


def test_modular_inverse_oracle():
    task = make("modular_inverse")
    assert [n for n in range(30) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    for problem in all_problems(task):
        prime, numbers = re.fullmatch(r"modular_inverse (\d+): ([\d ]+)", problem.prompt).groups()
        assert PRIMES[problem.level][0] <= int(prime) <= PRIMES[problem.level][1]
        for number, inverse in zip(numbers.split(), problem.answer.split(" "), strict=True):
            assert [x for x in range(int(prime)) if int(number) * x % int(prime) == 1] == [int(inverse)]
        for step in task.solution(problem).split():
            before, times, value = step.partition("*")
            if times:  # before-quotient*last=value
                before, quotient = re.fullmatch(r"(-?\d+)-(\d+)", before).groups()
                last, value = value.split("=")
                assert int(before) - int(quotient) * int(last) == int(value)
            else:
                assert true_step(step)
