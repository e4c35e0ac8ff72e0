"""Orthogonality and linear equations against cases worked by hand and independent computations."""

import random
import re
from fractions import Fraction

import numpy as np
import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.tasks.algebra.linear_equations import (
    determinant,
    elimination,
    equation_text,
    parse_equation,
    reduced,
    regular_matrix,
)
from rlpt.tasks.algebra.orthogonality import MISSES, factors, summands, vectors
from rlpt.tasks.base import create_task, train_seed
from rlpt.types import Problem


def samples(name, levels=range(10), count=20):
    task = create_task({"name": name})
    return [task.sample(train_seed(11, index), level) for level in levels for index in range(count)]


def test_orthogonality_by_hand():
    task = create_task({"name": "orthogonality"})
    problem = Problem("orthogonality", 0, 3, "", "10", {"pairs": [[(1, 4), (-2, 2)], [(3, -1), (1, 2)]]})
    trace = "1*4=4:4 -2*2=-4:0 1 3*-1=-3:-3 1*2=2:-1 0"
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace.replace(":0 1", ":8 0")) == [1, 0, 0, 1, 1, 1]
    assert [task.verify(problem, answer) for answer in ("01", "11", "10")] == [0, pytest.approx(0.9 / 4), 1]
    assert task.verify(problem, "1") == pytest.approx(0.9 / 4)


def test_factors_and_summands():
    assert sorted(factors(3)[6]) == [(-3, -2), (-2, -3), (2, 3), (3, 2)]
    assert (0, 0) not in factors(3)[0]
    assert (6, -6) in summands(3, 0)
    assert all(a + b == 4 and {a, b} <= set(factors(3)) for a, b in summands(3, 4))


@pytest.mark.parametrize("largest", [3, 5, 9])
def test_vectors_have_their_dot_product(largest):
    rng = random.Random(1)
    for dims in range(2, 7):
        for dot in (0, *MISSES):
            pairs = vectors(rng, dims, largest, dot)
            assert len(pairs) == dims
            assert sum(a * b for a, b in pairs) == dot
            assert max(abs(entry) for pair in pairs for entry in pair) <= largest


def test_orthogonality_agrees_with_numpy_and_is_balanced():
    bits = ""
    for problem in samples("orthogonality", count=60):
        found = ""
        for pair in problem.prompt.removeprefix("orthogonality ").split("; "):
            first, second = (np.array(vector.split(), int) for vector in pair.split("|"))
            found += str(int(first @ second == 0))
        assert found == problem.answer
        bits += found
    assert 0.45 < bits.count("1") / len(bits) < 0.55


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ([2, -1, 5], "2x-y=5"),
        ([-1, 1, -3], "-x+y=-3"),
        ([0, 12, 0], "12y=0"),
        ([1, 0, -1, 7], "x-z=7"),
    ],
)
def test_equations_as_text(row, text):
    assert equation_text(row) == text
    assert parse_equation(text, len(row) - 1) == row


@pytest.mark.parametrize(
    "text", ["", "=", "x", "x=", "=3", "0=0", "1x=2", "x+x=2", "y+x=2", "x=02", "x=-0", "+x=1", "z=1", "x=1=1", "x²=1"]
)
def test_texts_that_are_no_equation(text):
    assert parse_equation(text, 2) is None


def test_huge_equations_are_refused():
    assert parse_equation("9" * 100_000 + "x=1", 1) is None
    assert parse_equation("x=" + "9" * 100_000, 1) is None


def test_elimination_by_hand():
    assert reduced([-2, 4, -6]) == [1, -2, 3]
    written = [equation_text(row) for row in elimination([[2, 1, 5], [1, -1, 1]])]
    assert written == ["3y=3", "y=1", "x=2"]
    assert [equation_text(row) for row in elimination([[-3, 6]])] == ["x=-2"]


def test_regular_matrices():
    rng = random.Random(2)
    assert determinant([[2, 1], [1, -1]]) == -3
    for size, largest in ((2, 1), (2, 3), (3, 1), (3, 3), (3, 9)):
        for _ in range(100):
            matrix = regular_matrix(rng, size, largest)
            assert determinant(matrix) == round(np.linalg.det(matrix)) != 0
            assert all(0 < abs(entry) <= largest for row in matrix for entry in row)


def test_solutions_agree_with_cramer_s_rule():
    for problem in samples("linear_equations"):
        equations = problem.prompt.split()[1:]
        rows = [[int(re.sub(r"^([+-]?)$", r"\g<1>1", c)) for c in re.split("[xyz]=?", text)] for text in equations]
        matrix = [row[:-1] for row in rows]
        values = []
        for column in range(len(rows)):
            replaced = [[*row[:column], row[-1], *row[column + 1 : -1]] for row in rows]
            values.append(Fraction(determinant(replaced), determinant(matrix)))
        assert ",".join(map(str, values)) == problem.answer


def test_traces_end_with_every_unknown_found():
    task = create_task({"name": "linear_equations"})
    for problem in samples("linear_equations"):
        steps = task.solution(problem).split()
        assert task.verify_steps(problem, " ".join(steps)) == [1] * len(steps)
        found = {f"{name}={value}" for name, value in zip("xyz", problem.answer.split(","))}
        assert found <= set(steps)
        assert steps[-1].startswith("x=")


def test_linear_equations_credit_and_steps():
    task = create_task({"name": "linear_equations"})
    meta = {"rows": [[2, 1, 5], [1, -1, 1]], "solution": [2, 1]}
    problem = Problem("linear_equations", 0, 3, "", "2,1", meta)
    assert task.solution(problem) == "3y=3 y=1 x=2"
    assert task.verify_steps(problem, "3x=6 x=2 3y=3 y=1") == [1, 1, 1, 1], "another way is as right"
    assert task.verify_steps(problem, "x=3 2x+y=5 4x+2y=10 x+y=3 2x+2y=6 x+y=3") == [0, 0, 0, 1, 0, 0]
    climb = [task.verify(problem, answer) for answer in ("1", "2", "2,", "2,5", "2,1")]
    assert climb == sorted(climb)
    assert (climb[0], climb[-1]) == (0, 1)
    assert task.verify(problem, "2,1,1") < 1
