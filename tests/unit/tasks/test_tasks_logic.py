"""Logic families against brute force and cases worked by hand."""

import re
from itertools import product

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.tasks.base import create_task
from rlpt.tasks.logic.formula import VALUES, with_values
from rlpt.tasks.logic.implication import fired
from rlpt.tasks.logic.knights_knaves import conclusions
from rlpt.tasks.logic.satisfiability import literal_tables, search
from rlpt.types import Problem


def drawn(name, count=40, levels=range(10)):
    task = create_task({"name": name})
    return task, [task.sample(seed, level) for level in levels for seed in range(count)]


def python_value(formula, values):
    """By Python's own reading of the formula (not the family's)."""
    text = re.sub("!([a-z])", r"(1-\1)", formula).replace("=", "==")
    return int(eval(text, {"__builtins__": {}}, {name: int(bit) for name, bit in values.items()}))


def test_values_in_formulas():
    assert with_values("(a&!b)|c", {"a": "1", "b": "0"}) == "(1&1)|c"
    assert with_values("!a=!b", {"b": "1"}) == "!a=0"
    assert [VALUES[text] for text in ("1&0", "0|1", "1^1", "0=0", "1")] == ["0", "1", "0", "1", "1"]


def test_boolean_oracle_is_python_s():
    _, problems = drawn("boolean")
    for problem in problems:
        formulas = problem.prompt.split(": ")[1].split()
        assert problem.answer == "".join(str(python_value(f, problem.meta["values"])) for f in formulas)


def test_boolean_by_hand():
    task = create_task({"name": "boolean"})
    meta = {"values": {"a": "1", "b": "0", "c": "0"}, "formulas": ["((a&!b)|(c^b))", "!a"]}
    problem = Problem("boolean", 0, 3, "", "10", meta)
    trace = "((1&1)|(0^0)) (1|(0^0)) (1|0) 1 0"
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace) == [1] * 5
    assert task.verify_steps(problem, "((1&1)|(0^0)) ((1&1)|0) (1|0) 1 0") == [1] * 5, "another order"
    assert task.verify_steps(problem, "((1&1)|(0^0)) (0|(0^0)) (1|(0^0)) 1 (1|0) 1 1 0 0") == [
        1,
        0,
        1,
        0,
        1,
        1,
        0,
        1,
        0,
    ]
    assert [task.verify(problem, text) for text in ("", "01", "1", "11", "10")] == [0, 0, 0.45, 0.45, 1]


def satisfying(problem):
    """All satisfying assignments, by brute force."""
    variables = problem.meta["variables"]
    found = []
    for bits in product("01", repeat=len(variables)):
        value = dict(zip(variables, bits))
        if all(any((value[x.lower()] == "1") == x.islower() for x in clause) for clause in problem.meta["clauses"]):
            found.append("".join(bits))
    return found


def test_literal_tables():
    assert literal_tables(1) == [(0b01, 0b10)]
    assert literal_tables(2) == [(0b0011, 0b1100), (0b0101, 0b1010)]


def test_satisfiability_against_brute_force():
    task, problems = drawn("satisfiability", 20)
    for problem in problems:
        right = satisfying(problem)
        assert problem.answer == max(right), "the first in order, true before false"
        assert len(set(problem.meta["clauses"])) == len(problem.meta["clauses"])
        for bits in product("01", repeat=len(problem.answer)):
            assert (task.verify(problem, "".join(bits)) == 1) == ("".join(bits) in right)


def test_satisfiability_trace_ends_with_the_answer():
    task, problems = drawn("satisfiability")
    for problem in problems:
        trail = {}
        for step in task.solution(problem).split():
            literal = step[-1]
            if literal != "!":
                if len(step) == 1:  # turned over: what was tried or forced after it is forgotten
                    while next(reversed(trail)) != literal.lower():
                        trail.popitem()
                    trail.popitem()
                trail[literal.lower()] = "1" if literal.islower() else "0"
        assert "".join(trail[v] for v in problem.meta["variables"]) == problem.answer


def test_satisfiability_by_hand():
    task = create_task({"name": "satisfiability"})
    meta = {"variables": "abc", "clauses": ["Ab", "AB", "aC", "bc"]}
    problem = Problem("satisfiability", 0, 2, "", "010", meta)
    trace = "?a Ab:b AB:! A aC:C bc:b"
    assert " ".join(search("abc", meta["clauses"])) == trace
    assert task.verify_steps(problem, trace) == [1] * 6
    assert task.verify_steps(problem, "?A aC:C ?b") == [1] * 3, "other literals first"
    assert task.verify_steps(problem, "?a Ab:! Ab:Ab Ab:b ?B AB:! ?c A ?A ?C") == [1, 0, 0, 1, 0, 1, 0, 1, 0, 1]
    assert task.verify_steps(problem, "Ab:A A ?d ?ab : ?") == [0] * 6
    # Of 4 clauses 3 hold by chance; the credit is 0.9 x 0.2 x the share of bits as long as no more do.
    assert task.verify(problem, "0") == pytest.approx(0.9 * 0.2 / 3)
    assert task.verify(problem, "01") == pytest.approx(0.9 * 0.4 / 3)
    assert task.verify(problem, "000") == pytest.approx(0.9 * 0.2)
    assert task.verify(problem, "010") == 1


def test_implication_oracle_is_the_least_fixed_point():
    _, problems = drawn("implication")
    share = []
    for problem in problems:
        head, asked = problem.prompt.removeprefix("implies ").split("; ")
        facts, rules = head.split(": ")
        # Each symbol that follows has a round: one above the highest of the premises of some rule.
        rounds = dict.fromkeys(facts, 0)
        for depth in range(1, 30):
            for rule in rules.split():
                premises, conclusion = rule.split(">")
                if all(rounds.get(p, depth) < depth for p in premises):
                    rounds.setdefault(conclusion, depth)
        assert problem.answer == "".join("01"[symbol in rounds] for symbol in asked)
        assert not set(asked) & set(facts)
        assert len(set(asked)) == len(asked)
        share.append(problem.answer.count("1") / len(asked))
    assert 0.4 < sum(share) / len(share) < 0.6


def test_implication_by_hand():
    task = create_task({"name": "implication"})
    rules = ["bc>d", "a>b", "e>f", "b>c"]
    problem = Problem("implication", 0, 3, "", "101", {"facts": "a", "rules": rules, "asked": "dfb"})
    assert fired("a", rules) == ["a>b", "b>c", "bc>d"]
    assert task.solution(problem) == "a>b b>c bc>d d=1 f=0 b=1"
    assert task.verify_steps(problem, "bc>d a>b a>b e>f b>c bc>d f=0 d=1 f=1 f=0 b=1 b=1") == [
        *(0, 1, 0, 0, 1, 1),
        *(0, 1, 0, 1, 1, 0),
    ]
    assert [task.verify(problem, text) for text in ("010", "1", "11", "101")] == pytest.approx([0, 0.3, 0.3, 1])


def test_knights_and_knaves_have_one_solution():
    _, problems = drawn("knights_knaves", 25)
    for problem in problems:
        lines, asked = problem.prompt.removeprefix("knights ").split("? ")
        said = dict(line.split(":") for line in lines.split())
        worlds = [dict(zip(said, bits)) for bits in product("01", repeat=len(said))]
        right = [w for w in worlds if all(int(w[name]) == python_value(said[name], w) for name in said)]
        assert len(right) == 1
        assert problem.answer == "".join(right[0][name] for name in asked)


def test_knights_trace_knows_all_that_are_asked():
    task, problems = drawn("knights_knaves")
    for problem in problems:
        known = dict(step[-2:] for step in task.solution(problem).split())
        assert problem.answer == "".join(known[name] for name in problem.meta["asked"])


def test_conclusions_of_one_statement():
    assert conclusions("a", "!a&b", {}) == {"a": "0", "b": "0"}
    assert conclusions("a", "!a", {"a": "1"}) == {}, "no case is left"
    assert conclusions("a", "a=b", {}) == {"b": "1"}
    assert conclusions("a", "!b", {}) == {}
    assert conclusions("a", "!b", {"a": "0"}) == {"b": "1"}
    assert conclusions("c", "a|b", {"a": "0", "b": "0"}) == {"c": "0"}


def test_knights_by_hand():
    task = create_task({"name": "knights_knaves"})
    meta = {"said": ["a:c", "b:!b&a", "c:a|!b"], "asked": "abc"}
    problem = Problem("knights_knaves", 0, 2, "", "001", meta)
    # b cannot be a knight, so what he says is false and a is no knight either; then a lies of c.
    meta["said"][0] = "a:!c"
    trace = "b:!b&a>b0 b0:1&a>a0 a0:!c>c1"
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace) == [1] * 3
    assert task.verify_steps(problem, "b:!b&a>a0 b:!b&0>b0 c:0|1>c1") == [1] * 3, "another order"
    assert task.verify_steps(problem, "b:!b&a>b1 a:!c>c1 b:!b&a>b0 b:!b&a>a0 b0:1&a>a0 d:a>a0 >") == [
        0,
        0,
        1,
        0,
        1,
        0,
        0,
    ]
    assert [task.verify(problem, text) for text in ("110", "0", "01", "011", "001")] == pytest.approx(
        [0, 0.3, 0.3, 0.6, 1]
    )
