"""Towers, grids and tiles against cases worked by hand and independent searches."""

import itertools
import random
from collections import deque

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.planning.grid_path import carve, distances_from, neighbours
from rlpt.tasks.planning.hanoi import position_at, shortest_plan, tower_moves
from rlpt.tasks.planning.sliding_tiles import manhattan, slide
from rlpt.types import Problem


def samples(name, levels=range(10), count=20):
    task = create_task({"name": name})
    return [(task, task.sample(train_seed(11, index), level)) for level in levels for index in range(count)]


def hanoi_distances(num_disks, goal):
    """Moves from every position to the tower on `goal`, by breadth-first search over disks on pegs."""
    found, queue = {goal * num_disks: 0}, deque([goal * num_disks])
    while queue:
        position = queue.popleft()
        for disk, peg in itertools.product(range(num_disks), "ABC"):
            smaller = position[disk + 1 :]
            if peg != position[disk] and position[disk] not in smaller and peg not in smaller:
                other = position[:disk] + peg + smaller
                if other not in found:
                    found[other] = found[position] + 1
                    queue.append(other)
    return found


def test_hanoi_plans_are_shortest():
    assert tower_moves(2, "A", "C") == "CBA"
    assert shortest_plan("AAB", "C") == "ACABCAB"
    for num_disks, goal in itertools.product(range(1, 6), "ABC"):
        distances = hanoi_distances(num_disks, goal)
        assert len(distances) == 3**num_disks
        for position, distance in distances.items():
            assert len(shortest_plan(position, goal)) == distance


def test_hanoi_positions_are_as_far_as_asked():
    rng = random.Random(3)
    for num_disks in (1, 3, 5):
        distances = hanoi_distances(num_disks, "B")
        for distance in range(2**num_disks):
            assert distances[position_at(rng, num_disks, "B", distance)] == distance


def test_hanoi_moves_and_credit():
    task = create_task({"name": "hanoi"})
    problem = Problem("hanoi", 0, 3, "hanoi AA to C", "CBA", {"start": "AA", "goal": "CC"})
    assert task.solution(problem) == "C:AB B:CB A:CC"
    assert task.successor(problem, "AA", "A") is None, "B and C are bare"
    climb = [task.verify(problem, answer) for answer in ("A", "B", "C", "CB", "CBA")]
    assert climb == sorted(climb)
    assert (climb[0], climb[1], climb[-1]) == (0, pytest.approx(0.9 * 0.2), 1)
    assert task.verify(problem, "BABA") == 1, "the smallest disk makes a detour"
    assert task.verify(problem, "CBAA") < 1
    assert task.verify_steps(problem, "B:AC A:AB B:CB B:CA A:CC") == [1, 1, 1, 0, 1]
    assert task.verify_steps(problem, "C:AB C:AA A:CC x") == [1, 0, 0, 0], "back to the start is no step forward"


def test_carved_mazes_are_trees():
    rng, near = random.Random(4), neighbours(6, 7)
    for start in near:
        opened = carve(rng, start, near)
        edges = sum(other in opened for place in opened for other in near[place].values())
        assert edges == 2 * (len(opened) - 1)
        grid = ["." if place in opened else "#" for place in range(6 * 8)]
        assert set(distances_from(start, grid, near)) == opened, "connected"


def test_grid_paths_are_shortest_by_another_search():
    for task, problem in samples("grid_path"):
        rows = problem.prompt.split()[1].split("/")
        cells = {(r, c): cell for r, row in enumerate(rows) for c, cell in enumerate(row) if cell != "#"}
        start, goal = (next(place for place, cell in cells.items() if cell == mark) for mark in "SG")
        reached, steps = {start}, 0
        while goal not in reached:
            reached |= {(r + a, c + b) for r, c in reached for a, b in ((0, 1), (0, -1), (1, 0), (-1, 0))} & set(cells)
            steps += 1
        assert steps == len(problem.answer)
        r, c = start
        for move in problem.answer:
            r, c = r + (move == "D") - (move == "U"), c + (move == "R") - (move == "L")
            assert (r, c) in cells
        assert (r, c) == goal
        assert task.verify(problem, problem.answer[:-1]) < 1


def test_grid_path_credit():
    task = create_task({"name": "grid_path"})
    meta = {"grid": "S...#/.#G.#/....#/#####", "start": "00", "goal": "12"}
    problem = Problem("grid_path", 0, 4, "", "RRD", {**meta, "grid": meta["grid"] + "/#####"})
    assert task.solution(problem) == "R:01 R:02 D:12"
    climb = [task.verify(problem, answer) for answer in ("U", "RD", "R", "RR", "RRD")]
    assert climb == sorted(climb)
    assert (climb[0], climb[-1]) == (0, 1)
    assert task.verify(problem, "DDRRU") == 1, "any path is right"
    assert task.verify(problem, "RRDD") < task.verify(problem, "RR") + 0.2
    assert task.verify_steps(problem, "D:10 D:20 R:22 R:21 L:20 R:22 U:12") == [1, 1, 0, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("state", "move", "after"),
    [
        ("103/425", "D", "123/405"),
        ("103/425", "U", None),
        ("103/425", "L", "013/425"),
        ("130/425", "R", None),
        ("123/045", "L", None),
        ("123/045", "U", "023/145"),
        ("123/456/780", "D", None),
        ("123/456/780", "L", "123/456/708"),
    ],
)
def test_slides(state, move, after):
    assert slide(state, move) == after


def test_manhattan_by_hand():
    assert manhattan("123/405", "123/405") == 0
    assert manhattan("103/425", "123/405") == 1
    assert manhattan("543/210", "123/450") == 2 + 2 + 2 + 2


def test_sliding_answers_arrive_and_are_hardly_longer_than_needed():
    for _, problem in samples("sliding_tiles", range(8), 5):
        start, goal = problem.prompt.replace(" to ", " ").split()[1:]
        reached, steps = {start}, 0
        while goal not in reached:
            reached |= {after for state in reached for move in "UDLR" if (after := slide(state, move)) is not None}
            steps += 1
        state = start
        for move in problem.answer:
            state = slide(state, move)
        assert state == goal
        assert manhattan(start, goal) <= steps <= len(problem.answer)
        assert (len(problem.answer) - steps) % 2 == 0


def test_sliding_credit():
    task = create_task({"name": "sliding_tiles"})
    problem = Problem("sliding_tiles", 0, 1, "", "RD", {"start": "013/425", "goal": "123/405"})
    assert task.solution(problem) == "R:103/425 D:123/405"
    climb = [task.verify(problem, answer) for answer in ("U", "D", "R", "RD")]
    assert climb == sorted(climb)
    assert (climb[0], climb[-1]) == (0, 1)
    assert task.verify(problem, "DURD") == 1, "a detour within the limit"
    assert task.verify_steps(problem, "R:103/425 L:013/425 D:123/405 D:123/405") == [1, 0, 1, 0]
