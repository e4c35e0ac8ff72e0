"""Rewriting, cellular automata and next terms against cases worked by hand and independent computations."""

import itertools
import re

import pytest

import rlpt.tasks  # noqa: F401  (registers)
from rlpt.tasks.base import create_task, train_seed
from rlpt.tasks.sequences.cellular_automaton import evolve
from rlpt.tasks.sequences.next_term import (
    ALTERNATING,
    ARITHMETIC,
    FIBONACCI,
    FIXED_BY,
    SECOND_ORDER,
    SHOWN,
    differences,
    extend,
    kind_of,
)
from rlpt.tasks.sequences.rewriting import rewrite
from rlpt.types import Problem


def samples(name, levels=range(10), count=20):
    task = create_task({"name": name})
    return [task.sample(train_seed(11, index), level) for level in levels for index in range(count)]


def test_rewriting_by_hand():
    rules = [("ca", "b"), ("ab", "ba")]
    assert rewrite("abcab", rules, 3) == ["abbb", "babb", "bbab"], "the first rule that applies, leftmost"
    assert rewrite("abcab", rules, 9) == ["abbb", "babb", "bbab", "bbba"], "ends where no rule applies"
    assert rewrite("bbb", rules, 9) == []
    task = create_task({"name": "rewriting"})
    problem = Problem("rewriting", 0, 3, "", "bbab", {"word": "abcab", "words": rewrite("abcab", rules, 3)})
    assert task.solution(problem) == "abbb babb bbab"
    assert task.verify_steps(problem, "abbb bbab bbab") == [1, 0, 1]
    climb = [task.verify(problem, answer) for answer in ("aaba", "ab", "bba", "bbab")]
    assert climb == [0, *[pytest.approx(0.9 * share) for share in (0.25, 0.75)], 1]


def test_rewriting_agrees_with_a_run_read_from_the_prompt():
    for problem in samples("rewriting"):
        word, steps, rules = re.fullmatch(r"rewriting ([a-d]+) x(\d+): (.*)", problem.prompt).groups()
        for _ in range(int(steps)):
            for left, right in (rule.split(">") for rule in rules.split()):
                if left in word:
                    word = re.sub(left, right, word, count=1)
                    break
        assert word == problem.answer


def test_cellular_automaton_by_hand():
    assert evolve("01101110", "00100", 2) == ["01100", "11100"]
    assert evolve("01011010", "00100", 2) == ["01010", "10001"], "rule 90 is the sum of both neighbours modulo 2"
    assert evolve("11111111", "0", 1) == ["1"]
    task = create_task({"name": "cellular_automaton"})
    problem = Problem("cellular_automaton", 0, 3, "", "11100", {"rows": ["01100", "11100"]})
    assert task.solution(problem) == "01100 11100"
    assert task.verify_steps(problem, "01101 11100 00000") == [0, 1, 0]
    climb = [task.verify(problem, answer) for answer in ("00011", "00000", "1110", "11100")]
    assert climb == [0, *[pytest.approx(0.9 * share**2) for share in (0.4, 0.8)], 1]


def test_cellular_automata_agree_with_the_rule_s_number():
    for problem in samples("cellular_automaton"):
        rule, steps, row = re.fullmatch(r"cellular_automaton ([01]{8}) x(\d+): ([01]+)", problem.prompt).groups()
        cells, width = int(row, 2), len(row)
        for _ in range(int(steps)):
            # Two cells of padding on the right hold the neighbours of cell i in bits i, i+1 and i+2.
            cells = sum((int(rule, 2) >> (cells << 1 >> i & 7) & 1) << i for i in range(width))
        assert f"{cells:0{width}b}" == problem.answer


def test_next_terms_by_hand():
    assert extend(ARITHMETIC, [3, 5], 7, 6) == [3, 5, 0, 2, 4, 6]
    assert extend(ALTERNATING, [1, 5, 3, 4], 10, 8) == [1, 5, 3, 4, 5, 3, 7, 2]
    assert extend(FIBONACCI, [2, 9], 10, 6) == [2, 9, 1, 0, 1, 1]
    assert extend(SECOND_ORDER, [0, 1, 4], 10, 6) == [0, 1, 4, 9, 6, 5], "squares"
    assert differences([3, 5, 0], 7) == [2, 2]
    assert [kind_of(terms, 10) for terms in ([1, 3, 5, 7, 9, 1], [1, 5, 3, 4, 5, 3], [2, 9, 1, 0, 1, 1])] == [0, 1, 2]
    assert kind_of([0, 1, 4, 9, 6, 5], 10) == SECOND_ORDER
    with pytest.raises(ValueError, match="no known kind"):
        kind_of([0, 0, 0, 0, 0, 1], 10)


@pytest.mark.parametrize(
    ("terms", "modulus", "trace"),
    [
        ([3, 5, 0, 2, 4, 6, 1, 3, 5], 7, "22222 6+2=1 1+2=3 3+2=5"),
        ([1, 5, 3, 4, 5, 3, 7, 2], 10, "48118 2929 5+2=7 3+9=2"),
        ([2, 9, 1, 0, 1, 1, 2, 3], 10, "72910 1+1=2 1+2=3"),
        ([0, 1, 4, 9, 6, 5, 6], 10, "13579 2222 9+2=1 5+1=6"),
    ],
)
def test_next_term_traces(terms, modulus, trace):
    task = create_task({"name": "next_term"})
    answer = "".join(map(str, terms[6:]))
    problem = Problem("next_term", 0, 3, "", answer, {"terms": terms, "modulus": modulus})
    assert task.solution(problem) == trace
    assert task.verify_steps(problem, trace + " 1+1=2") == [1] * len(trace.split()) + [0]
    assert task.verify(problem, answer) == 1
    assert task.verify(problem, str((terms[6] + 1) % 10) + answer[1:]) == pytest.approx(
        0.9 * (len(answer) - 1) / len(answer)
    )


@pytest.mark.parametrize("modulus", range(2, 11))
def test_six_terms_leave_no_doubt(modulus):
    continuations: dict[tuple[int, ...], tuple[int, ...]] = {}
    for kind, count in enumerate(FIXED_BY):
        for start in itertools.product(range(modulus), repeat=count):
            terms = tuple(extend(kind, start, modulus, 18))
            assert continuations.setdefault(terms[:6], terms[6:]) == terms[6:]
    assert min(SHOWN) == 6


def test_next_terms_follow_from_the_prompt():
    for problem in samples("next_term"):
        count, modulus, shown = re.fullmatch(r"next_term x(\d+) mod (\d+): (.*)", problem.prompt).groups()
        terms = list(map(int, shown.split()))
        following = extend(kind_of(terms, int(modulus)), terms, int(modulus), len(terms) + int(count))
        assert "".join(map(str, following[len(terms) :])) == problem.answer
