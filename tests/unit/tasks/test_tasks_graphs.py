"""Graph families against brute force and cases worked by hand."""

from itertools import permutations, product

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.tasks.base import create_task, keyed_random
from rlpt.tasks.graphs.random_graph import connected_edges
from rlpt.tasks.graphs.reachability import closure, new_nodes
from rlpt.tasks.graphs.shortest_path import settle, weights
from rlpt.tasks.graphs.topological_order import predecessors, valid_beginning
from rlpt.types import Problem


def drawn(name, count=30, levels=range(10)):
    task = create_task({"name": name})
    return task, [task.sample(seed, level) for level in levels for seed in range(count)]


def spread(start, edges):
    """Nodes that a directed walk of any length, 0 too, from `start` meets: edges applied until nothing is new."""
    found = {start}
    while new := {edge[1] for edge in edges if edge[0] in found} - found:
        found |= new
    return found


def test_random_graphs_are_connected_and_simple():
    for size, extra in ((2, 0), (3, 9), (6, 2), (10, 10)):
        rng = keyed_random("graph", size, extra)
        for _ in range(50):
            edges = connected_edges(rng, "0123456789"[:size], extra)
            assert len({frozenset(edge) for edge in edges}) == len(edges)
            assert len(edges) == min(size - 1 + extra, size * (size - 1) // 2)
            assert all(a != b for a, b in edges)
            assert len(spread("0", edges + [edge[::-1] for edge in edges])) == size


def test_closure_and_new_nodes():
    reached = closure(["01", "12", "20", "34"])
    assert reached[:5] == [0b111, 0b111, 0b111, 0b10000, 0]
    assert new_nodes("1", ["13", "12", "10", "21"], "012") == "3"


def test_reachability_against_walks():
    task, problems = drawn("reachability")
    share = []
    for problem in problems:
        edges, queries = (part.split() for part in problem.prompt.removeprefix("reach ").split(": "))
        assert len(set(edges)) == len(edges)
        assert len(set(queries)) == len(queries)
        assert problem.answer == "".join("01"[goal in spread(start, edges)] for start, goal in queries)
        share.append(problem.answer.count("1") / len(queries))
    assert 0.4 < sum(share) / len(share) < 0.6
    assert task.answer_limit(9) == 8


def test_reachability_by_hand():
    task = create_task({"name": "reachability"})
    meta = {"edges": ["01", "03", "12", "32"], "queries": ["02", "20"]}
    problem = Problem("reachability", 0, 1, "", "10", meta)
    trace = "0>13 1>2 02=1 2> 20=0"
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace) == [1] * 5
    assert task.verify_steps(problem, "0>13 3>2 02=1 2> 20=0") == [1] * 5, "another order"
    assert task.verify_steps(problem, "02=1 1>2 0>1 0>13 0> 1>2 02=0 02=1 20=0 2> 20=1 20=0 20=0") == [
        *(0, 0, 0, 1, 0, 1),
        *(0, 1, 0, 1, 0, 1, 0),
    ]
    assert [task.verify(problem, text) for text in ("01", "0", "1", "11", "10")] == pytest.approx([0, 0, 0.45, 0.45, 1])


def simple_paths(start, goal, weight):
    """(weight, path) of all paths without a repeated node, by trying all orders of nodes."""
    nodes = {node for pair in weight for node in pair} - {start, goal}
    if start == goal:
        return [(0, start)]
    found = []
    for count in range(len(nodes) + 1):
        for middle in permutations(sorted(nodes), count):
            path = start + "".join(middle) + goal
            steps = [path[i : i + 2] for i in range(len(path) - 1)]
            if all(step in weight for step in steps):
                found.append((sum(weight[step] for step in steps), path))
    return found


def test_shortest_path_against_all_paths():
    task, problems = drawn("shortest_path", 15, range(6))
    for problem in problems:
        head, edges = problem.prompt.removeprefix("shortest ").split(": ")
        paths = simple_paths(head[0], head[2], weights(edges.split()))
        least = min(paths)[0]
        assert (least, problem.answer) in paths
        for weight, path in paths:
            assert (task.verify(problem, path) == 1) == (weight == least)


def test_shortest_path_trace_leads_back_to_the_start():
    task, problems = drawn("shortest_path", levels=range(1, 10))
    for problem in problems:
        back = [step for step in task.solution(problem).split() if "<" in step]
        assert problem.answer == problem.meta["start"] + "".join(step[0] for step in reversed(back))


EDGES = ["01:4", "02:1", "12:2", "13:1", "32:5"]


def test_settle_in_order_of_weight():
    assert list(settle("0", EDGES).items()) == [("0", (0, "")), ("2", (1, "0")), ("1", (3, "2")), ("3", (4, "1"))]


def test_shortest_path_by_hand():
    task = create_task({"name": "shortest_path"})
    problem = Problem("shortest_path", 0, 2, "", "0213", {"start": "0", "goal": "3", "edges": EDGES, "weight": 4})
    trace = "0=0 02:0+1=1 21:1+2=3 13:3+1=4 3<1 1<2 2<0"
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace) == [1] * 7
    assert task.verify_steps(problem, "02:0+1=1 0=0 01:0+4=4 02:0+1=1 3<1 21:1+2=4 21:1+2=3 13:3+1=4 3<2 3<1") == [
        *(0, 1, 0, 1, 0),
        *(0, 1, 1, 0, 1),
    ]
    climb = ["3", "1", "0", "02", "023", "013", "0213"]
    scores = [task.verify(problem, answer) for answer in climb]
    # 01 leads on to a total of 5 in 2 edges: 3/4 x 4/5; 023 weighs 6: 3/4 x 4/6; 02 is half of the way, halved.
    assert scores == pytest.approx([0, 0, 0.9 / 8, 0.9 / 4, 0.9 / 2, 0.9 * 0.6, 1])
    assert task.verify(problem, "0123") < task.verify(problem, "013"), "a detour is worth less"
    tie = {"start": "0", "goal": "3", "edges": ["01:1", "02:1", "13:2", "23:2"], "weight": 3}
    both = Problem("shortest_path", 0, 2, "", "013", tie)
    assert task.verify(both, "023") == 1, "any least path is right"
    assert task.verify_steps(both, "0=0 02:0+1=1 01:0+1=1 23:1+2=3 3<2 2<0") == [1] * 6


def test_topological_order_against_all_orders():
    task, problems = drawn("topological_order", 15, range(5))
    for problem in problems:
        edges = problem.prompt.split(": ")[1].split()
        nodes = sorted(set("".join(edges)))
        orders = [o for o in permutations(nodes) if all(o.index(a) < o.index(b) for a, b in edges)]
        right = {"".join(order[: problem.meta["wanted"]]) for order in orders}
        assert problem.answer == min(right)
        for answer in map("".join, permutations(nodes, problem.meta["wanted"])):
            assert (task.verify(problem, answer) == 1) == (answer in right)


def test_topological_order_by_hand():
    edges = ["20", "01", "23", "31"]
    task = create_task({"name": "topological_order"})
    problem = Problem("topological_order", 0, 2, "", "2031", {"edges": edges, "wanted": 4})
    assert predecessors(edges) == {"0": {"2"}, "1": {"0", "3"}, "2": set(), "3": {"2"}}
    assert [valid_beginning(text, predecessors(edges)) for text in ("", "0", "2", "22", "24", "2301")] == [
        0,
        0,
        1,
        1,
        1,
        4,
    ]
    trace = "0=1 1=2 2=0 3=1 2>0:0,3:0 0>1:1 3>1:0 1>"
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace) == [1] * 8
    assert task.verify_steps(problem, "2>0:0,3:0 3>1:1 0>1:0 1> 1>") == [1, 1, 1, 1, 0], "another order"
    assert task.verify_steps(problem, "0=1 0=1 1=1 0>1:1 2>0:0,3:1 2>0:0,3:0 2>0:0,3:0") == [1, 0, 0, 0, 0, 1, 0]
    assert task.verify(problem, "2301") == 1, "any order is right"
    # Half of the valid beginning's share, half of the share of edges in order.
    shares = {"1": 0, "2": 1 / 8, "20": 1 / 4 + 1 / 8, "203": 3 / 8 + 1 / 4, "2013": 1 / 4 + 3 / 8, "1023": 1 / 8}
    assert {text: task.verify(problem, text) for text in shares} == pytest.approx(
        {k: 0.9 * v for k, v in shares.items()}
    )


def test_first_node_of_an_order():
    task, problems = drawn("topological_order", levels=[0])
    for problem in problems:
        sources = {a for a, _ in problem.meta["edges"]} - {b for _, b in problem.meta["edges"]}
        assert {node for node in "012" if task.verify(problem, node) == 1} == sources


def test_colouring_against_all_colourings():
    task, problems = drawn("colouring", 10, range(5))
    for problem in problems:
        edges = problem.prompt.split(": ")[1].split()
        nodes = sorted(set("".join(edges)))
        assert len(problem.answer) == len(nodes)
        right = []
        for colours in map("".join, product("rgb", repeat=len(nodes))):
            colour = dict(zip(nodes, colours))
            if all(colour[a] != colour[b] for a, b in edges):
                right.append(colours)
            if len(nodes) < 7:
                assert (task.verify(problem, colours) == 1) == (right[-1:] == [colours])
        assert problem.answer == min(right, key=lambda text: ["rgb".index(c) for c in text]), "first fit"


def test_colouring_is_first_fit_at_every_level():
    task, problems = drawn("colouring", levels=range(5, 10))
    for problem in problems:
        colour = {}
        for node in problem.meta["nodes"]:
            beside = {colour.get(edge.replace(node, "")) for edge in problem.meta["edges"] if node in edge}
            colour[node] = next(letter for letter in problem.meta["colours"] if letter not in beside)
        assert "".join(colour.values()) == problem.answer
        assert task.verify(problem, problem.answer) == 1


def test_colouring_by_hand():
    task = create_task({"name": "colouring"})
    meta = {"nodes": "0235", "colours": "rgb", "edges": ["02", "23", "03", "35"]}
    problem = Problem("colouring", 0, 1, "", "rgbr", meta)
    trace = "0:=r 2:0r=g 3:0r2g=b 5:3b=r"
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace) == [1] * 4
    assert task.verify_steps(problem, "5:=b 3:5b=r 0:3r=g 2:0g3r=b") == [1] * 4, "another order"
    assert task.verify_steps(problem, "0:=y 0:=r 0:=r 2:0r=r 2:=g 2:0r=b 4:=r 3:0r2g=b =") == [
        0,
        1,
        0,
        0,
        0,
        1,
        0,
        0,
        0,
    ]
    assert task.verify(problem, "gbrg") == 1, "any proper colouring is right"
    assert task.verify(problem, "rgby") < 1, "y is not among the three"
    # Of 4 edges 8/3 are proper by chance, and each above that is worth 3/4 of 0.8.
    shares = {"rrrr": 0.2, "r": 0.05, "rgb": 0.15 + 0.2, "rgrg": 0.2 + 0.2, "rgbb": 0.2 + 0.2, "rgrr": 0.2}
    assert {text: task.verify(problem, text) for text in shares} == pytest.approx(
        {k: 0.9 * v for k, v in shares.items()}
    )
